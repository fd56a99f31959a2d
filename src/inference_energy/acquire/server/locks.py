"""One lock per GPU: two servers on one GPU, or two measurements on one machine without GPUs, spoil each other.

A lock is an flock(2) on a small file. It belongs to the open file, so the guardian, which inherits it, goes on holding
it until the server is gone even if the owner is killed; and no stale lock can stay behind.

The folder is shared, so that two users exclude each other. flock(2) needs no right to write, so only the user who made
a lock file may. Another user could have put something else in its place: a link is not followed, and a file that is not
a plain one with one name is refused, or else its target would be cut off.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
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


_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def _open(path: Path) -> int:
    """Open a lock file, or make it.

    Raises:
        InputError: it cannot be opened, or is no lock file.
    """
    remedy = f"set {DIRECTORY_VARIABLE} to another directory"
    try:
        fd = _open_or_make(path)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            os.close(fd)
            raise InputError(
                f"{path} is no lock file but a link, or no plain file; remove it if nobody needs it, or {remedy}"
            )
        if found.st_uid == os.geteuid():
            os.fchmod(fd, 0o644)  # for all users, whatever the umask took away, and writable for this one only
        return fd
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else str(error)[:300]
        raise InputError(f"cannot open the lock file {path}: {reason}; {remedy}") from error


def _open_or_make(path: Path) -> int:
    """Open without O_CREAT first, which sticky directories refuse for others' files."""
    try:
        return os.open(path, os.O_RDWR | _FLAGS)
    except PermissionError:
        return os.open(path, os.O_RDONLY | _FLAGS)
    except FileNotFoundError:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o644)
        except FileExistsError:  # made by another process in between
            return os.open(path, os.O_RDONLY | _FLAGS)


def _lock(fd: int, name: str, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        what = "this machine's CPU is" if name == "cpu" else f"GPU {name} is"
        raise InputError(
            f"server.gpus: {what} being measured by {_holder(fd)}; wait for it or stop it (lock file {path})"
        ) from None
    with suppress(OSError):  # the file of another user: it goes on naming that user's last holder
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()} {' '.join(sys.orig_argv)[:500]}\n".encode(errors="replace"), 0)


def _holder(fd: int) -> str:
    """Return who holds a lock, as the lock file says: a text of others, from which nothing but the words is shown."""
    text = os.pread(fd, 1024, 0).decode(errors="replace").strip()
    pid, _, command = "".join(letter if letter.isprintable() else "?" for letter in text).partition(" ")
    if not re.fullmatch("[0-9]{1,9}", pid):
        return "another process"
    if not psutil.pid_exists(int(pid)):
        return f"the guardian of the ended process {pid} ({command}), which is still stopping its server"
    return f"process {pid} ({command})"
