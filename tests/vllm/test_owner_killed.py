"""Nothing of the real vLLM survives when those who own it are killed and can do nothing any more."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.test_guardian import is_running
from tests.vllm.real_server import Processes, SharedMemory, wait_for

from inference_energy.acquire.server.guardian import is_gone
from inference_energy.acquire.server.guardian_client import WatchedProcess
from inference_energy.acquire.server.locks import acquire_locks
from inference_energy.acquire.server.preflight import port_is_free
from inference_energy.acquire.server.settings import LaunchSpec

pytestmark = pytest.mark.vllm

OWNER = Path(__file__).with_name("owner.py")


class Run:
    """An owner with the real server, as a process group of its own that can be killed."""

    def __init__(self, folder: Path, spec: LaunchSpec) -> None:
        self.folder = folder
        self.spec = spec
        self.memory = SharedMemory()
        self.process: subprocess.Popen[bytes] | None = None
        self.guardian: WatchedProcess | None = None
        self.processes: Processes | None = None

    def start(self, command: list[str]) -> None:
        """Start the command, and wait until the server that it owns is ready."""
        (self.folder / "spec.pickle").write_bytes(pickle.dumps(self.spec))
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache"), "TMPDIR": str(self.folder)}
        with (self.folder / "owner.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        wait_for(self._is_ready, "the server to be ready")
        self.processes = Processes(self.status()["guardian_pid"])
        assert self.processes.are_a_whole_vllm()
        assert self.memory.made()

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, (self.folder / "owner.log").read_text()
        if self.guardian is None and self.spec.status_path.exists():
            self.guardian = WatchedProcess.of(self.status()["guardian_pid"])
        return (self.folder / "ready").exists()

    def status(self) -> dict[str, Any]:
        return json.loads(self.spec.status_path.read_text())

    def owner_pid(self) -> int:
        return int((self.folder / "owner.pid").read_text())

    def assert_nothing_left(self) -> None:
        """No process, no port, no lock, no shared memory."""
        wait_for(lambda: self.status()["state"] == "stopped", "the guardian to have stopped the server")
        final = self.status()
        assert final["leftover_pids"] == []
        # Pipe and pid of a killed owner go at the same moment; the guardian may see either first.
        watched = {self.process.pid, self.owner_pid()}
        assert final["reason"] in {"its owner ended", *(f"the watched process {pid} ended" for pid in watched)}
        wait_for(lambda: not self.processes.running(), "all processes of the server and its guardian to be gone")
        wait_for(lambda: not is_running(self.owner_pid()), "the owner to be gone")
        assert self.memory.left() == set()
        assert port_is_free(self.spec.host, self.spec.port)
        acquire_locks([]).close()

    def clean_up(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.guardian is not None and not is_gone(*self.guardian):  # only after a failed test
            Processes(self.guardian.pid).clean_up()
        if self.processes is not None:
            self.processes.clean_up()


@pytest.fixture
def run(tmp_path: Path, make_spec: Callable[..., LaunchSpec], real_model: dict[str, Any]) -> Iterator[Run]:
    run = Run(tmp_path, make_spec(tmp_path, real_model))
    yield run
    run.clean_up()


def test_owner_is_killed(run: Run) -> None:
    run.start([sys.executable, str(OWNER), str(run.folder)])
    os.kill(run.owner_pid(), signal.SIGKILL)
    assert run.process.wait() == -signal.SIGKILL
    run.assert_nothing_left()


def test_snakemake_and_its_jobs_are_killed(run: Run) -> None:
    (run.folder / "Snakefile").write_text(
        f"rule session:\n    output: 'done'\n    shell: '{sys.executable} {OWNER} {run.folder} && touch done'\n"
    )
    run.start([sys.executable, "-m", "snakemake", "--cores", "1", "--directory", str(run.folder)])
    assert run.owner_pid() != run.process.pid
    os.killpg(run.process.pid, signal.SIGKILL)
    assert run.process.wait() == -signal.SIGKILL
    run.assert_nothing_left()
