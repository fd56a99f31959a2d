"""One lock per GPU: two servers on one GPU, or two measurements on one machine without GPUs, spoil each other.

A lock is an flock(2) on a small file. It belongs to the open file, so the guardian, which inherits it, goes on holding
it until the server is gone even if the owner is killed; and no stale lock can stay behind.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from inference_energy.errors import InputError

DIRECTORY_VARIABLE = "INFERENCE_ENERGY_LOCK_DIRECTORY"


def lock_directory() -> Path:
    """Return $INFERENCE_ENERGY_LOCK_DIRECTORY, else the first writable of /run/lock, /var/lock and the temp folder."""
    if chosen := os.environ.get(DIRECTORY_VARIABLE):
        return Path(chosen)
    candidates = [Path("/run/lock"), Path("/var/lock"), Path(tempfile.gettempdir())]
    for directory in candidates:
        if directory.is_dir() and os.access(directory, os.W_OK | os.X_OK):
            return directory
    raise InputError(f"no directory for lock files can be written; set {DIRECTORY_VARIABLE} to one")


class Locks:
    """Held locks. `close` releases them for this process only: a process that inherited `fds` still holds them."""

    def __init__(self, fds: Sequence[int]) -> None:
        self.fds = list(fds)

    def close(self) -> None:
        """Close the files. No LOCK_UN: that would also release them for the guardian."""
        while self.fds:
            os.close(self.fds.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def acquire_locks(gpus: Sequence[str], directory: Path | None = None) -> Locks:
    """Take the lock of each GPU (by UUID), or the one called `cpu` without GPUs; never waits.

    Raises:
        InputError: another process holds one of them; the message names it.
    """
    folder = lock_directory() if directory is None else directory
    locks = Locks([])
    try:
        for name in sorted(set(gpus)) or ["cpu"]:
            path = folder / f"inference-energy-{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.lock"
            fd = _open(path)
            locks.fds.append(fd)
            _lock(fd, name, path)
    except BaseException:
        locks.close()
        raise
    return locks


def _open(path: Path) -> int:
    """Open a file shared by all users. First without O_CREAT, which sticky directories refuse for others' files."""
    try:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            os.fchmod(fd, 0o666)  # the umask took bits away
            return fd
    except OSError as error:
        raise InputError(
            f"cannot open the lock file {path}: {error}; set {DIRECTORY_VARIABLE} to another directory"
        ) from error


def _lock(fd: int, name: str, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        what = "this machine's CPU is" if name == "cpu" else f"GPU {name} is"
        raise InputError(
            f"server.gpus: {what} being measured by {_holder(fd)}; wait for it or stop it (lock file {path})"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()} {' '.join(sys.orig_argv)[:500]}\n".encode(), 0)


def _holder(fd: int) -> str:
    pid, _, command = os.pread(fd, 1024, 0).decode(errors="replace").strip().partition(" ")
    if not pid.isdigit():
        return "another process"
    if not psutil.pid_exists(int(pid)):
        return f"the guardian of the ended process {pid} ({command}), which is still stopping its server"
    return f"process {pid} ({command})"
