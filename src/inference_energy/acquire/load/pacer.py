"""The pacer: callbacks and sleeps due at absolute times of the monotonic clock.

It wakes by a timer of the kernel (timerfd_create(2)): a file descriptor that becomes readable at an absolute time. The
event loop's own timers count in whole milliseconds from the time its iteration began; a timerfd has the kernel's
high-resolution timers and is not subject to the timer slack of a wait with a timeout.
"""

import asyncio
import ctypes
import errno
import heapq
import os
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

_NS = 1_000_000_000
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class KernelTimer:
    """A timerfd through the C library: Python has it from 3.13 on.

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
        """Return the descriptor, which is readable once the time set has come."""
        return self._fd

    def set(self, due_ns: int) -> None:
        """Make the descriptor readable at a monotonic time [ns], at once if it has passed; replaces the time before."""
        # 0 would disarm the timer.
        self._spec.value.seconds, self._spec.value.nanoseconds = divmod(max(1, due_ns), _NS)
        if self._settime(self._fd, _ABSOLUTE, self._pointer, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def clear(self) -> None:
        """Make the descriptor unreadable until the next time set."""
        with suppress(BlockingIOError):
            os.read(self._fd, 8)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)


_FAR_NS = 2**62


class Pacer:
    """Callbacks at absolute times, in the running event loop.

    Times are absolute, so a late callback does not delay the following ones, and all that are due by then are called
    at once. Without a timerfd the loop's own timers serve, which are up to a millisecond late.

    Args:
        kernel: False does without the timerfd.
    """

    def __init__(self, *, kernel: bool = True) -> None:
        self._loop = asyncio.get_running_loop()
        self._heap: list[tuple[int, int, Callable[..., object], tuple[Any, ...]]] = []
        self._order = count()
        self._set_ns = _FAR_NS
        self._timer: KernelTimer | None = None
        self._handle: asyncio.TimerHandle | None = None
        if kernel:
            try:
                self._timer = KernelTimer()
            except OSError:
                self._timer = None
        if self._timer is not None:
            self._loop.add_reader(self._timer.fileno(), self._wake)

    @property
    def kernel(self) -> bool:
        """Whether the kernel's timer is used."""
        return self._timer is not None

    @property
    def next_ns(self) -> int:
        """When the next callback is due; far in the future if there is none."""
        return self._heap[0][0] if self._heap else _FAR_NS

    def call_at(self, due_ns: int, callback: Callable[..., object], *arguments: Any) -> None:
        """Call back at a monotonic time [ns], never before it; after it, in the next iteration of the loop."""
        heapq.heappush(self._heap, (due_ns, next(self._order), callback, arguments))
        if due_ns < self._set_ns:
            self._set(due_ns)

    async def sleep_until(self, due_ns: int) -> None:
        """Wait for a monotonic time [ns]; returns at once if it has passed."""
        if due_ns <= time.monotonic_ns():
            return
        future = self._loop.create_future()
        self.call_at(due_ns, _release, future)
        await future

    def close(self) -> None:
        """Drop all callbacks and close the timer."""
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()
        if self._timer is not None:
            self._loop.remove_reader(self._timer.fileno())
            self._timer.close()
            self._timer = None

    def _set(self, due_ns: int) -> None:
        self._set_ns = due_ns
        if self._timer is not None:
            self._timer.set(due_ns)
            return
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_later(max(0, due_ns - time.monotonic_ns()) / 1e9, self._wake)

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.clear()
        self._set_ns = _FAR_NS
        heap = self._heap
        try:
            while heap and heap[0][0] <= time.monotonic_ns():
                _, _, callback, arguments = heapq.heappop(heap)
                callback(*arguments)
        finally:
            # The loop's own timers may wake too early: wait for the rest of the time.
            if heap and heap[0][0] < self._set_ns:
                self._set(heap[0][0])


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
