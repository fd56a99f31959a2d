"""CPU seconds used so far by the server's processes, or by the whole machine: the input of the modelled source.

Both only ever grow, also when processes end. What a process used between the last look and its end is not seen.
"""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import psutil

RESCAN_S = 1.0


class CpuTime(ABC):
    """A clock of CPU seconds; `what` names whose."""

    what: str

    @abstractmethod
    def seconds(self) -> float:
        """CPU seconds so far; never smaller than the call before."""


class MachineCpuTime(CpuTime):
    """Everything that runs on this machine."""

    what = "whole machine"

    def seconds(self) -> float:
        """Busy seconds of all logical CPUs since boot."""
        times = psutil.cpu_times()
        return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


class TreeCpuTime(CpuTime):
    """A process and its descendants, the ended ones included.

    Args:
        root_pid: gives the process's pid, or None while there is no server.
        rescan_s: time between two searches for new descendants, which walk through all of /proc.
    """

    what = "server's process tree"

    def __init__(self, root_pid: Callable[[], int | None], rescan_s: float = RESCAN_S) -> None:
        self._root_pid = root_pid
        self._rescan_s = rescan_s
        self._root: psutil.Process | None = None
        self._ended_pid: int | None = None
        self._seen: dict[psutil.Process, float] = {}
        self._total_s = 0.0
        self._next_scan_s = 0.0

    def seconds(self) -> float:
        """CPU seconds that the tree used since it was first seen."""
        fresh_root = self._find_root()
        now_s = time.monotonic()
        if fresh_root or now_s >= self._next_scan_s:
            self._next_scan_s = now_s + self._rescan_s
            self._find_descendants(fresh_root)
        for process, last_s in list(self._seen.items()):
            used_s = _cpu_seconds(process)
            if used_s is None:
                # Its time stays in the total.
                del self._seen[process]
                continue
            self._total_s += max(0.0, used_s - last_s)
            self._seen[process] = max(used_s, last_s)
        return self._total_s

    def _find_root(self) -> bool:
        """Take up a new root; True if there is one."""
        pid = self._root_pid()
        if self._root is not None:
            running = self._root.is_running()
            if pid == self._root.pid and running:
                return False
            if not running:
                self._ended_pid = self._root.pid
            self._root = None
        # A pid that has ended is not taken up again: another process may have got its number.
        if pid is None or pid == self._ended_pid:
            return False
        try:
            self._root = psutil.Process(pid)
        except psutil.NoSuchProcess:
            return False
        return True

    def _find_descendants(self, fresh_root: bool) -> None:
        if self._root is None:
            return
        try:
            tree = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in tree:
            if process not in self._seen:
                # What ran before the server was first seen is not charged; later children are charged in full.
                self._seen[process] = (_cpu_seconds(process) or 0.0) if fresh_root else 0.0


class StatusFilePid:
    """The server's pid from the guardian's status file (JSON, key `server_pid`); None while there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._pid: int | None = None

    def __call__(self) -> int | None:
        """Read the file if it is another than before."""
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
            if stamp != self._stamp:
                status = json.loads(self._path.read_text())
                pid = status.get("server_pid") if isinstance(status, dict) else None
                self._pid = pid if isinstance(pid, int) and not isinstance(pid, bool) and pid > 0 else None
                self._stamp = stamp
        except (OSError, ValueError):
            self._stamp = self._pid = None
        return self._pid


def _cpu_seconds(process: psutil.Process) -> float | None:
    """User and system seconds of one process, or None once it has ended."""
    try:
        times = process.cpu_times()
        return float(times.user + times.system) if process.is_running() else None
    except psutil.Error:
        return None
