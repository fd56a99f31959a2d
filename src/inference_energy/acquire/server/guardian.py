"""The guardian: the server's parent, and the one process that is certain to end it.

It runs in its own session, adopts every orphan below it (sub-reaper), and stops the server when its owner asks, when
its owner ends, when a watched process ends, or when it gets SIGTERM. If the server ends by itself, what it left
behind is ended too. Locks that it inherited as open files stay held until nothing of the server is left.

The control pipe is its standard input: one line of JSON (see `GuardianRequest`), then silence. Any further byte asks
for an orderly stop; end of file means that the owner is gone. The status file holds a `GuardianStatus`.

No package outside the standard library: it must start fast, and must not fail because of anyone else's package.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from inference_energy.contracts.io import atomic_write

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
WATCH_INTERVAL_S = 0.5
SETTLE_S = 2.0  # time for the processes that the server leaves behind to clean up (shared memory, semaphores)
KILL_LIMIT_S = 30.0
LIBC = ctypes.CDLL(None, use_errno=True)


class GuardianRequest(NamedTuple):
    """The owner's line on the control pipe. `watch` holds (pid, start in clock ticks since boot) pairs."""

    command: list[str]
    environment: dict[str, str]
    cwd: str
    log_path: str
    status_path: str
    grace_s: float
    watch: list[tuple[int, int]]


class ProcessStat(NamedTuple):
    """State letter, parent and start (clock ticks since boot) of a process, from /proc/PID/stat (proc(5))."""

    state: str
    parent_pid: int
    start_ticks: int


def process_stat(pid: int) -> ProcessStat | None:
    """Return the state of a process, or None when there is none with this pid."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()  # the name before it may hold spaces and brackets
    return ProcessStat(fields[0].decode(), int(fields[1]), int(fields[19]))


def is_gone(pid: int, start_ticks: int) -> bool:
    """Return whether the process that started then has ended, is a zombie, or has lost its pid to another."""
    stat = process_stat(pid)
    return stat is None or stat.state in "ZX" or stat.start_ticks != start_ticks


def descendants(root: int) -> list[int]:
    """Return every process below `root`. None escapes by setsid or a double fork: a sub-reaper inherits orphans."""
    children: dict[int, list[int]] = {}
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        stat = process_stat(pid)
        if stat is not None:
            children.setdefault(stat.parent_pid, []).append(pid)
    pids: list[int] = []
    to_visit = [root]
    while to_visit:
        below = children.get(to_visit.pop(), [])
        pids += below
        to_visit += below
    return pids


def frees_shared_memory(pid: int) -> bool:
    """Return whether this is Python's resource tracker.

    It ends once all who used it are dead, and removes their files in /dev/shm: 400 MB for a small vLLM. Killed along
    with them, it would leave those there for ever.
    """
    with suppress(OSError):
        return b"multiprocessing.resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


class GuardianStatus(NamedTuple):
    """The content of the status file.

    Attributes:
        guardian_pid: process of the guardian.
        state: `starting`, `running`, `stopping` or `stopped`.
        reason: why the server is stopped.
        server_pid: process of the server.
        return_code: exit status of the server.
        stop_duration_s: how long the stop took.
        killed_pids: processes that had to be killed.
        leftover_pids: processes that could not be ended.
    """

    guardian_pid: int
    state: str = "starting"
    reason: str | None = None
    server_pid: int | None = None
    return_code: int | None = None
    stop_duration_s: float | None = None
    killed_pids: Sequence[int] = ()
    leftover_pids: Sequence[int] = ()


def write_status(path: Path, status: GuardianStatus) -> None:
    """Write the status file as a whole. A full disk must not keep a server alive, so it is only logged."""
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(status._asdict(), indent=1) + "\n")
    except OSError as error:
        print(f"guardian: cannot write {path}: {error}", file=sys.stderr, flush=True)


class Children:
    """The server and everything below it, as its parent and reaper sees them."""

    def __init__(self, server_pid: int, wakeup_fd: int) -> None:
        self.server_pid = server_pid
        self.wakeup_fd = wakeup_fd
        self.return_code: int | None = None

    def reap(self) -> bool:
        """Collect ended children. False once there is no child: then there is no descendant, as we inherit orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.server_pid and self.return_code is None:
                self.return_code = os.waitstatus_to_exitcode(status)

    def server_ended(self) -> bool:
        """Return whether the server itself has ended (its descendants may live on)."""
        self.reap()
        return self.return_code is not None

    def wait_until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Wait for the condition, checking it whenever a child ends."""
        deadline = time.monotonic() + limit_s
        while not condition():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            wait_readable([self.wakeup_fd], min(left_s, 0.1))
        return True

    def kill_all(self, limit_s: float) -> tuple[list[int], list[int]]:
        """SIGKILL every descendant until none is left: (those killed, those still there at the limit)."""
        killed: set[int] = set()
        began = time.monotonic()
        while self.reap():
            below = [pid for pid in descendants(os.getpid()) if (stat := process_stat(pid)) and stat.state not in "ZX"]
            elapsed_s = time.monotonic() - began
            if elapsed_s > limit_s:
                return sorted(killed), sorted(below)
            for pid in below:
                if elapsed_s < SETTLE_S and frees_shared_memory(pid):
                    continue
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
            wait_readable([self.wakeup_fd], 0.05)
        return sorted(killed), []


def wait_readable(fds: list[int], timeout_s: float) -> list[int]:
    """Return the readable ones of `fds`. The first is the wake-up pipe and is emptied."""
    ready, _, _ = select.select(fds, [], [], timeout_s)
    if fds[0] in ready:
        with suppress(BlockingIOError):
            os.read(fds[0], 4096)
    return ready


def start_server(request: GuardianRequest) -> int:
    """Start the server in its own session: it dies with its guardian, and finds signals as a shell would leave them."""
    guardian_pid = os.getpid()

    def in_the_child() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guardian_pid:  # the guardian ended before prctl could take effect
            os._exit(127)
        # Ignored signals stay ignored across exec; vLLM must see its own SIGINT.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    with Path(request.log_path).open("ab") as log:
        server = subprocess.Popen(
            request.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=request.cwd,
            env=request.environment,
            start_new_session=True,
            preexec_fn=in_the_child,  # noqa: PLW1509 - this process has one thread
        )
    server.returncode = 0  # Popen must not wait for it: Children.reap does
    return server.pid


def reason_to_stop(request: GuardianRequest, children: Children, control_fd: int, terminated: list[int]) -> str:
    """Wait until there is a reason to stop, and name it."""
    while True:
        if children.server_ended():
            return "the server ended by itself"
        if terminated:
            return "the guardian got SIGTERM"
        for pid, start_ticks in request.watch:
            if is_gone(pid, start_ticks):
                return f"the watched process {pid} ended"
        if control_fd in wait_readable([children.wakeup_fd, control_fd], WATCH_INTERVAL_S):
            return "its owner asked for it" if os.read(control_fd, 1) else "its owner ended"


def stop(children: Children, grace_s: float) -> tuple[list[int], list[int]]:
    """SIGTERM and patience for the server, then SIGKILL for the rest: (those killed, those still there)."""
    if not children.server_ended():
        with suppress(ProcessLookupError):
            os.kill(children.server_pid, signal.SIGTERM)
    if children.wait_until(children.server_ended, grace_s):
        children.wait_until(lambda: not children.reap(), min(grace_s, SETTLE_S))
    return children.kill_all(KILL_LIMIT_S)


def guard(request: GuardianRequest, control_fd: int) -> int:
    """Start the server, wait for a reason to stop, stop it; return the exit status of the guardian."""
    wakeup_fd, signal_fd = os.pipe()
    os.set_blocking(wakeup_fd, False)
    os.set_blocking(signal_fd, False)
    signal.set_wakeup_fd(signal_fd, warn_on_full_buffer=False)
    terminated: list[int] = []
    # The handlers only note: waiting for a process inside one deadlocks with the same wait outside.
    signal.signal(signal.SIGTERM, lambda number, _: terminated.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)

    path, status = Path(request.status_path), GuardianStatus(os.getpid())
    write_status(path, status)
    try:
        server_pid = start_server(request)
    except (OSError, subprocess.SubprocessError) as error:
        reason = f"the server could not be started: {error}"
        write_status(path, status._replace(state="stopped", reason=reason, stop_duration_s=0.0))
        return 1
    status = status._replace(state="running", server_pid=server_pid)
    write_status(path, status)
    children = Children(server_pid, wakeup_fd)
    try:
        reason = reason_to_stop(request, children, control_fd, terminated)
    except Exception as error:  # the server must not outlive any error
        reason = f"the guardian failed: {error!r}"
    status = status._replace(state="stopping", reason=reason, return_code=children.return_code)
    write_status(path, status)
    began = time.monotonic()
    killed, leftover = stop(children, request.grace_s)
    status = status._replace(
        state="stopped",
        return_code=children.return_code,
        stop_duration_s=round(time.monotonic() - began, 3),
        killed_pids=killed,
        leftover_pids=leftover,
    )
    write_status(path, status)
    while leftover:  # stuck in the kernel: keep the locks until they are gone
        time.sleep(1.0)
        _, leftover = children.kill_all(KILL_LIMIT_S)
    return 0


def read_request(control_fd: int) -> GuardianRequest | None:
    """Return the owner's line, or None when it ended, or changed its mind, before the server was started."""
    text = b""
    while b"\n" not in text:
        chunk = os.read(control_fd, 65536)
        if not chunk:
            return None
        text += chunk
    line, _, asked_to_stop = text.partition(b"\n")
    return None if asked_to_stop else GuardianRequest(**json.loads(line))


def main() -> int:
    """Become the guardian of one server."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        print("guardian: cannot become a sub-reaper: Linux 3.4 or newer is needed", file=sys.stderr)
        return 1
    request = read_request(control_fd=0)
    return 2 if request is None else guard(request, control_fd=0)


if __name__ == "__main__":
    sys.exit(main())
