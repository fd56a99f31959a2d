"""The default experiment's server on vLLM's CPU build: how it is launched, and what it must not leave behind."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from inference_energy.acquire.server.guardian import descendants, is_gone
from inference_energy.acquire.server.guardian_client import WatchedProcess
from inference_energy.acquire.server.settings import LaunchSpec
from inference_energy.config.loader import read_merged
from inference_energy.config.servers import LaunchServer

ROOT = Path(__file__).parents[2]
CONFIG = read_merged([ROOT / "config.yaml"])
LIMIT_S = 300.0
SHARED_MEMORY = Path("/dev/shm")


def default_server() -> LaunchServer:
    """The section `servers.vllm` of config.yaml."""
    server = CONFIG.servers["vllm"]
    assert isinstance(server, LaunchServer)
    return server


def real_spec(folder: Path, python: Path, model: Mapping[str, Any], port: int, temporary: Path) -> LaunchSpec:
    """What the pipeline would launch on a machine without a GPU, with its log and status in ``folder``."""
    server = default_server()
    dummy = {"load-format": "dummy"} if model["weights"] == "dummy" else {}
    return LaunchSpec(
        model=str(Path(model["path"]).absolute()),
        served_model_name=model["name"],
        port=port,
        log_path=folder / "server.log",
        status_path=folder / "guardian.json",
        interpreter=python,
        arguments=server.arguments | server.arguments_on_cpu | dummy,
        environment=server.variables | server.variables_on_cpu | {"TMPDIR": str(temporary)},
        ready_timeout_s=LIMIT_S,
        grace_s=server.grace_s,
    )


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.05)


class Processes:
    """A guardian and all below it while the server is ready, told from later ones with the same pid."""

    def __init__(self, guardian_pid: int) -> None:
        self.names: set[str] = set()
        self.watched: list[WatchedProcess] = []
        self.mapped: set[int] = set()
        for pid in (guardian_pid, *descendants(guardian_pid)):
            if process := WatchedProcess.of(pid):
                self.watched.append(process)
                with suppress(psutil.NoSuchProcess):
                    self.names.add(psutil.Process(pid).name())
                self.mapped |= _mapped(pid)

    def running(self) -> list[int]:
        return [process.pid for process in self.watched if not is_gone(*process)]

    def are_a_whole_vllm(self) -> bool:
        """Whether the engine and its worker are among them: what survives a killed API server."""
        return {"VLLM::EngineCore", "VLLM::Worker"} <= self.names

    def clean_up(self) -> None:
        """End and remove what is still there; that is nothing, unless a test failed."""
        for pid in self.running():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.running(), "killed processes to be gone")
        for name, inode in _shared().items():
            if inode in self.mapped:
                (SHARED_MEMORY / name).unlink(missing_ok=True)


class SharedMemory:
    """What has come into /dev/shm since this was made."""

    def __init__(self) -> None:
        self.before = _shared().keys()

    def made(self) -> set[str]:
        return _shared().keys() - self.before

    def left(self) -> set[str]:
        """What nobody uses any more: memory of other programs that run beside the tests is in use."""
        used = set[int]().union(*map(_mapped, psutil.pids()))
        return {name for name, inode in _shared().items() if name not in self.before and inode not in used}


def _shared() -> dict[str, int]:
    """Names in /dev/shm with their inodes. A mapped semaphore shows the name it had before, but the same inode."""
    found = {}
    for path in SHARED_MEMORY.iterdir():
        with suppress(FileNotFoundError):
            found[path.name] = path.stat().st_ino
    return found


def _mapped(pid: int) -> set[int]:
    """Inodes of the files in /dev/shm that a process has mapped; none if it has ended or is another user's."""
    try:
        text = Path(f"/proc/{pid}/maps").read_text(errors="replace")
    except OSError:
        return set()
    return {int(inode) for inode in re.findall(rf"(\d+)\s+{SHARED_MEMORY}/", text)}
