"""A timer of the kernel: a file descriptor that becomes readable at an absolute time of CLOCK_MONOTONIC.

The event loop's own timers count in whole milliseconds from the time its iteration began; a timerfd has the kernel's
high-resolution timers and is not subject to the timer slack of a wait with a timeout.
"""

import ctypes
import errno
import os
import time
from contextlib import suppress

_NS = 1_000_000_000
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class KernelTimer:
    """A timerfd, by way of the C library: Python has it from 3.13 on.

    Raises:
        OSError: the kernel or the C library has none.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        try:
            create = self._library.timerfd_create
            self._settime = self._library.timerfd_settime
        except AttributeError as error:
            raise OSError(errno.ENOSYS, "the C library has no timerfd") from error
        self._fd: int = create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._spec = _TimerSpec()
        self._pointer = ctypes.byref(self._spec)

    def fileno(self) -> int:
        """The descriptor, readable once the time set has come."""
        return self._fd

    def set(self, due_ns: int) -> None:
        """Become readable at a monotonic time, at once if it has passed; replaces the time set before."""
        # 0 would disarm the timer.
        self._spec.value.seconds, self._spec.value.nanoseconds = divmod(max(1, due_ns), _NS)
        if self._settime(self._fd, _ABSOLUTE, self._pointer, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def clear(self) -> None:
        """Take note that it became readable."""
        with suppress(BlockingIOError):
            os.read(self._fd, 8)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)
