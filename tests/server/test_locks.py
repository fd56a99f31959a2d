"""One holder per GPU."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from inference_energy.acquire.server.locks import acquire_locks
from inference_energy.errors import InputError


def test_second_holder_is_refused_and_told_who_holds(tmp_path: Path) -> None:
    with acquire_locks(["GPU-a", "GPU-b"], tmp_path):
        with pytest.raises(InputError, match=rf"server\.gpus: GPU GPU-b is .* by process {os.getpid()} \(.*pytest"):
            acquire_locks(["GPU-b"], tmp_path)
        acquire_locks(["GPU-c"], tmp_path).close()
    acquire_locks(["GPU-b"], tmp_path).close()


def test_a_refusal_gives_back_what_it_had(tmp_path: Path) -> None:
    with acquire_locks(["GPU-b"], tmp_path):
        with pytest.raises(InputError):
            acquire_locks(["GPU-a", "GPU-b"], tmp_path)
        acquire_locks(["GPU-a"], tmp_path).close()


def test_without_gpus_the_machine_is_locked(tmp_path: Path) -> None:
    with (
        acquire_locks([], tmp_path),
        pytest.raises(InputError, match=r"this machine's CPU is .*inference-energy-cpu\.lock"),
    ):
        acquire_locks([], tmp_path)


def test_lock_files_are_for_all_users(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        acquire_locks(["GPU-a"], tmp_path).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "inference-energy-GPU-a.lock").stat().st_mode) == 0o666


def test_an_heir_goes_on_holding(tmp_path: Path) -> None:
    """As the guardian does after its owner is gone."""
    locks = acquire_locks([], tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=locks.fds
    ) as heir:
        locks.close()
        with pytest.raises(InputError):
            acquire_locks([], tmp_path)
        heir.stdin.close()
    acquire_locks([], tmp_path).close()


def test_an_ended_holder_is_called_so(tmp_path: Path) -> None:
    with acquire_locks([], tmp_path):
        (tmp_path / "inference-energy-cpu.lock").write_text("4194305 some command\n")
        with pytest.raises(InputError, match=r"guardian of the ended process 4194305 \(some command\)"):
            acquire_locks([], tmp_path)
