"""Timer that wakes the event loop at a moment, to a tenth of a millisecond.

asyncio's timers are up to 1 ms late, because it rounds waits up to epoll's whole milliseconds. Linux has timers that
are files (timerfd_create(2)), for which epoll waits without rounding.
"""

import asyncio
import ctypes
import os
import struct
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_TIMER_ABSOLUTE = 1
_NS = 1_000_000_000


class WakeTimer:
    """One timer on the monotonic clock; setting it again replaces the earlier time.

    If the system has no timer files, asyncio's own timers take over, up to 1 ms late.

    Args:
        callback: called in the event loop when the time has come.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self._fd = -1
        try:
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, AttributeError):
            return
        if self._fd >= 0:
            loop.add_reader(self._fd, self._fire)

    def set(self, at_ns: int) -> None:
        """Call back at this time, or at once if it has passed."""
        if self._fd >= 0:
            moment = struct.pack("=qqqq", 0, 0, *divmod(max(1, at_ns), _NS))
            self._libc.timerfd_settime(self._fd, _TIMER_ABSOLUTE, moment, None)
            return
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_later(max(0.0, (at_ns - time.monotonic_ns()) / _NS), self._callback)

    def close(self) -> None:
        """Never call back again. A second call does nothing."""
        if self._handle is not None:
            self._handle.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _fire(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # it was set again after it had fired
        self._callback()
