"""The owner's side of the guardian: start it, ask for the server's state, have it stopped.

The guardian watches its owner, and Snakemake above it: after SIGKILL of Snakemake the shell of its job goes on as an
orphan, and our own process with it.
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
from typing import NamedTuple, Self

import psutil

from inference_energy.acquire.server import guardian as guardian_process
from inference_energy.acquire.server.guardian import GuardianStatus, is_gone, process_stat
from inference_energy.errors import RunError


class WatchedProcess(NamedTuple):
    """A process; its start (clock ticks since boot) distinguishes it from a later one with the same pid."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> WatchedProcess | None:
        """Return the process that has this pid now, or None."""
        stat = process_stat(pid)
        return None if stat is None else cls(pid, stat.start_ticks)


def is_snakemake(command_line: Sequence[str]) -> bool:
    """Return whether a command line runs Snakemake, as a program or as a Python module, not in a shell's words."""
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
    """Return all Snakemake processes above this one, nearest first (a job may run in a second Snakemake)."""
    ancestors = []
    for process in psutil.Process().parents():
        try:
            command_line = process.cmdline()
        except psutil.Error:
            continue
        watched = WatchedProcess.of(process.pid)
        if watched is not None and is_snakemake(command_line):
            ancestors.append(watched)
    return tuple(ancestors)


MARKER = "INFERENCE_ENERGY_SERVER_ID"
START_LIMIT_S = 30.0
POLL_INTERVAL_S = 0.02
# Beyond the grace: the guardian's own settling and killing, and some room for a busy machine.
STOP_MARGIN_S = guardian_process.SETTLE_S + guardian_process.KILL_LIMIT_S + 15.0


@dataclass(frozen=True, slots=True)
class GuardianSpec:
    """The server's command and its end. Paths are absolute; `environment` is the server's whole environment."""

    command: Sequence[str]
    environment: Mapping[str, str]
    cwd: Path
    log_path: Path
    status_path: Path
    grace_s: float
    watch: Sequence[WatchedProcess] = ()
    lock_fds: Sequence[int] = ()


class Guardian:
    """A running guardian. However the owner ends, its guardian stops the server: it sees our pipe close."""

    def __init__(self, process: subprocess.Popen[bytes], spec: GuardianSpec, marker: str) -> None:
        self._process = process
        self._spec = spec
        self._marker = marker
        self._final: GuardianStatus | None = None
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
        while (status := self.status()).state == "starting":
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RunError(f"the guardian did not start; its messages are in {self._spec.log_path}")
            time.sleep(POLL_INTERVAL_S)
        if status.server_pid is None:
            raise RunError(f"{status.reason} (command: {self._spec.command[0]} ...)")
        self.server_pid = status.server_pid
        stat = process_stat(self.server_pid)
        self._server_start_ticks = stat.start_ticks if stat else -1

    def status(self) -> GuardianStatus:
        """Read the guardian's status; after `stop` the final one."""
        if self._final is not None:
            return self._final
        try:
            return GuardianStatus(**json.loads(self._spec.status_path.read_text()))
        except FileNotFoundError:
            return GuardianStatus(self.pid)

    def alive(self) -> bool:
        """Return whether the server's own process is running under its guardian."""
        return self._process.poll() is None and not is_gone(self.server_pid, self._server_start_ticks)

    def ended(self) -> bool:
        """Return whether the server and all that it started are gone, or the guardian was killed."""
        return self._process.poll() is not None or self.status().state == "stopped"

    def stop(self, timeout_s: float | None = None) -> GuardianStatus:
        """Have the server stopped and return the final status; a second call returns the same.

        If the guardian itself was killed, or takes longer than `timeout_s` (default: the grace and STOP_MARGIN_S), the
        owner ends the server's processes: it finds them by a marker in their environment.
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
        if status.state != "stopped":
            self._process.kill()
            killed, leftover = kill_marked(self._marker)
            status = GuardianStatus(
                guardian_pid=status.guardian_pid,
                state="stopped",
                reason="the guardian was killed or did not answer; the owner ended the server",
                server_pid=status.server_pid,
                killed_pids=killed,
                leftover_pids=leftover,
            )
        if not status.leftover_pids:  # otherwise it stays to hold the locks until they are gone
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
    """Return the processes that have this marker in their environment, without zombies (theirs is empty)."""
    needle = f"{MARKER}={marker}".encode()
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if needle in (entry / "environ").read_bytes().split(b"\0"):
                    pids.append(int(entry.name))
    return sorted(pids)
