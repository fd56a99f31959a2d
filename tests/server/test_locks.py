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


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_lock_files_can_be_locked_by_all_users_and_written_by_their_own(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        acquire_locks(["GPU-a"], tmp_path).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "inference-energy-GPU-a.lock").stat().st_mode) == 0o644


def test_a_file_that_only_another_user_may_write_is_locked_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire_locks(["GPU-a"], tmp_path).close()
    path = tmp_path / "inference-energy-GPU-a.lock"
    path.write_text("1 theirs\n")
    really_open = os.open

    def as_another_user(file: Path, flags: int, *mode: int) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY and file == path:
            raise PermissionError(13, "Permission denied")
        return really_open(file, flags, *mode)

    monkeypatch.setattr(os, "open", as_another_user)
    with acquire_locks(["GPU-a"], tmp_path), pytest.raises(InputError, match="is being measured by"):
        acquire_locks(["GPU-a"], tmp_path)
    assert path.read_text() == "1 theirs\n"


@pytest.mark.parametrize("kind", ["symbolic link", "dangling link", "hard link", "pipe", "folder"])
def test_nothing_that_was_put_in_the_place_of_a_lock_file_is_touched(tmp_path: Path, kind: str) -> None:
    valuable, path = tmp_path / "valuable", tmp_path / "inference-energy-GPU-a.lock"
    if kind != "dangling link":
        valuable.write_text("precious")
    match kind:
        case "symbolic link" | "dangling link":
            path.symlink_to(valuable)
        case "hard link":
            path.hardlink_to(valuable)
        case "pipe":
            os.mkfifo(path)
        case _:
            path.mkdir()
    with pytest.raises(InputError, match=r"inference-energy-GPU-a\.lock.* INFERENCE_ENERGY_LOCK_DIRECTORY"):
        acquire_locks(["GPU-a"], tmp_path)
    assert valuable.exists() == (kind != "dangling link")
    assert kind == "dangling link" or valuable.read_text() == "precious"


@pytest.mark.parametrize("content", [b"\x1b[2J\x07 rm", b"99999999999999999999 x", b"\xff\xfe", b"", b"-1 x"])
def test_what_others_wrote_into_a_lock_file_is_shown_without_control_characters(tmp_path: Path, content: bytes) -> None:
    with acquire_locks([], tmp_path):
        (tmp_path / "inference-energy-cpu.lock").write_bytes(content)
        with pytest.raises(InputError, match="being measured by another process") as refused:
            acquire_locks([], tmp_path)
    assert str(refused.value).isprintable()


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
