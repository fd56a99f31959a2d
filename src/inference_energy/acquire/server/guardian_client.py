"""The processes above us that the guardian should watch: Snakemake, whose death its jobs do not notice.

The processes above us that the guardian should watch: Snakemake, whose death its jobs do not notice.

After SIGKILL of Snakemake the shell of its job goes on as an orphan, and our own process with it. So the guardian is
told to watch Snakemake as well as its owner.

The owner's side of the guardian: start it, ask how the server is, have it stopped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, NamedTuple, Self

import psutil

from inference_energy.acquire.server import guardian as guardian_process
from inference_energy.acquire.server.guardian import is_gone, process_stat
from inference_energy.errors import RunError


class WatchedProcess(NamedTuple):
    """A process, told from a later one with the same pid by its start (clock ticks since boot)."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> WatchedProcess | None:
        """The process that has this pid now, or None."""
        stat = process_stat(pid)
        return None if stat is None else cls(pid, stat.start_ticks)


def is_snakemake(command_line: Sequence[str]) -> bool:
    """Whether a command line runs Snakemake, as a program or as a Python module; a shell that names it does not."""
    if not command_line:
        return False
    program, *arguments = command_line
    if PurePath(program).name == "snakemake":
        return True
    if not PurePath(program).name.startswith("python"):
        return False
    for index, argument in enumerate(arguments):
        if argument == "-m":
            return arguments[index + 1 : index + 2] == ["snakemake"]
        if not argument.startswith("-"):
            return PurePath(argument).name == "snakemake"
    return False


def snakemake_ancestors() -> tuple[WatchedProcess, ...]:
    """All Snakemake processes above this one, nearest first (Snakemake may run a job in a second Snakemake)."""
    found = []
    for process in psutil.Process().parents():
        try:
            command_line = process.cmdline()
        except psutil.Error:
            continue
        watched = WatchedProcess.of(process.pid)
        if watched is not None and is_snakemake(command_line):
            found.append(watched)
    return tuple(found)


MARKER = "INFERENCE_ENERGY_SERVER_ID"
START_LIMIT_S = 30.0
POLL_INTERVAL_S = 0.02
# Beyond the grace: the guardian's own settling and killing, and some room for a busy machine.
STOP_MARGIN_S = guardian_process.SETTLE_S + guardian_process.KILL_LIMIT_S + 15.0


@dataclass(frozen=True, slots=True)
class GuardianSpec:
    """What to run and how to end it. Paths are absolute; ``environment`` is the server's whole environment."""

    command: Sequence[str]
    environment: Mapping[str, str]
    cwd: Path
    log_path: Path
    status_path: Path
    grace_s: float
    watch: Sequence[WatchedProcess] = ()
    lock_fds: Sequence[int] = ()


class Guardian:
    """A running guardian. Whatever happens to the owner, its guardian stops the server: it sees our pipe close."""

    def __init__(self, process: subprocess.Popen[bytes], spec: GuardianSpec, marker: str) -> None:
        self._process = process
        self._spec = spec
        self._marker = marker
        self._final: dict[str, Any] | None = None
        self.pid = process.pid
        self.server_pid = -1
        self._server_start_ticks = -1

    @classmethod
    def start(cls, spec: GuardianSpec) -> Guardian:
        """Start a guardian and, through it, the server; return once the server's process exists.

        Raises:
            RunError: the server could not be executed, or the guardian did not come up.
        """
        for path in (spec.log_path, spec.status_path):
            path.parent.mkdir(parents=True, exist_ok=True)
        spec.status_path.unlink(missing_ok=True)
        marker = uuid.uuid4().hex
        request = guardian_process.GuardianRequest(
            command=list(spec.command),
            environment={**spec.environment, MARKER: marker},
            cwd=str(spec.cwd),
            log_path=str(spec.log_path),
            status_path=str(spec.status_path),
            grace_s=spec.grace_s,
            watch=[(item.pid, item.start_ticks) for item in (WatchedProcess.of(os.getpid()), *spec.watch) if item],
        )
        with spec.log_path.open("ab") as log:
            process = subprocess.Popen(
                # -P: a file of the working directory must not pass for a module of the standard library.
                [sys.executable, "-P", "-m", guardian_process.__name__],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=tuple(spec.lock_fds),
                start_new_session=True,
            )
        guardian = cls(process, spec, marker)
        try:
            guardian._hand_over(request)
        except BaseException:
            guardian.stop()
            raise
        return guardian

    def _hand_over(self, request: guardian_process.GuardianRequest) -> None:
        """Write the request (through the pipe: a command line would show its tokens to everyone), await the start."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request._asdict()).encode() + b"\n")
            self._process.stdin.flush()
        deadline = time.monotonic() + START_LIMIT_S
        while (status := self.status())["state"] == "starting":
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RunError(f"the guardian did not start; its messages are in {self._spec.log_path}")
            time.sleep(POLL_INTERVAL_S)
        if status["server_pid"] is None:
            raise RunError(f"{status['reason']} (command: {self._spec.command[0]} ...)")
        self.server_pid = status["server_pid"]
        stat = process_stat(self.server_pid)
        self._server_start_ticks = stat.start_ticks if stat else -1

    def status(self) -> dict[str, Any]:
        """The guardian's status file: state (starting, running, stopping, stopped), reason, guardian_pid,
        server_pid, return_code, stop_duration_s, killed_pids, leftover_pids; after ``stop`` the final one.
        """  # noqa: D205
        if self._final is not None:
            return self._final
        try:
            status: dict[str, Any] = json.loads(self._spec.status_path.read_text())
        except FileNotFoundError:
            status = {"state": "starting", "reason": None, "guardian_pid": self.pid, "server_pid": None}
        return status

    def alive(self) -> bool:
        """Whether the server's own process is running under its guardian."""
        return self._process.poll() is None and not is_gone(self.server_pid, self._server_start_ticks)

    def ended(self) -> bool:
        """Whether the guardian is done: the server and all that it started are gone (or the guardian was killed)."""
        return self._process.poll() is not None or self.status()["state"] == "stopped"

    def stop(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Have the server stopped and return the final status; a second call returns the same.

        If the guardian itself was killed, or takes longer than ``timeout_s`` (default: the grace and
        STOP_MARGIN_S), the owner ends the server's processes: they are known by a marker in their environment.
        """
        if self._final is not None:
            return self._final
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):  # already closed, or nobody there to read
            self._process.stdin.write(b"stop\n")
            self._process.stdin.flush()
        with suppress(OSError):
            self._process.stdin.close()
        deadline = time.monotonic() + (self._spec.grace_s + STOP_MARGIN_S if timeout_s is None else timeout_s)
        while not self.ended() and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL_S)
        status = self.status()
        if status["state"] != "stopped":
            self._process.kill()
            killed, leftover = kill_marked(self._marker)
            status |= {
                "state": "stopped",
                "reason": "the guardian was killed or did not answer; the owner ended the server",
                "return_code": None,
                "stop_duration_s": None,
                "killed_pids": killed,
                "leftover_pids": leftover,
            }
        if not status["leftover_pids"]:  # otherwise it stays to hold the locks until they are gone
            self._process.wait()
        self._final = status
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def kill_marked(marker: str, limit_s: float = guardian_process.KILL_LIMIT_S) -> tuple[list[int], list[int]]:
    """SIGKILL all processes whose environment holds the marker: (those killed, those still there at the limit)."""
    killed: set[int] = set()
    deadline = time.monotonic() + limit_s
    while (marked := marked_pids(marker)) and time.monotonic() < deadline:
        for pid in marked:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.1)
    return sorted(killed), marked


def marked_pids(marker: str) -> list[int]:
    """The processes that were started with this marker in their environment, zombies left out (theirs is empty)."""
    needle = f"{MARKER}={marker}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if needle in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return sorted(found)
