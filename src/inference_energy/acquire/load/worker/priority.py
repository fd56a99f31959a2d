"""The scheduler's preference for a load process."""

import ctypes
import errno
import os
import platform
import struct
from contextlib import suppress
from pathlib import Path

NICE = -5
"""Taken where it is allowed. Users share no core with a server, and a send or an arrival that waits for the server's
own work would be read as the server's time. The power sampler stands above."""

SLICE_NS = 100_000
"""A process that asks for short turns is let in sooner (Linux 6.12): with a busy program on the same core a timer is at
most 0.06 ms late; with the preference alone 3.5 ms."""

GROUP_NICE = -10
"""Where the kernel weighs sessions against each other (autogroup), a process's own preference counts only within its
session."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The system call's number: the C library has had a function for it only since 2024."""


def prefer() -> None:
    """Take the preference, as far as it is allowed and the kernel has it; a session of our own takes it as a whole.

    Who started this with real-time priority keeps that.
    """
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    try:
        _set_attributes(NICE, SLICE_NS)
    except OSError:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, NICE)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(f"{GROUP_NICE}\n")


def _set_attributes(nice: int, slice_ns: int) -> None:
    """sched_setattr(2) of this thread, for the ordinary policy.

    Raises:
        OSError: it is not allowed, or not known here.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, "the number of sched_setattr is not known for this processor")
    # size, policy, flags, nice, priority, runtime (the slice), deadline, period
    attributes = struct.pack("=IIQiIQQQ", 48, 0, 0, nice, 0, slice_ns, 0, 0)
    if ctypes.CDLL(None, use_errno=True).syscall(number, 0, attributes, 0) < 0:
        raise OSError(ctypes.get_errno(), "sched_setattr failed")
