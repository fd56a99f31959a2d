"""The engine in real time.

The engine's clock is virtual: a step begins where the one before ended, however late the event loop wakes. So the
delay of one wake-up is the lateness of the tokens of one step, and never adds up. Requests come in at their time of
arrival: one that came while a step ran waits for its end, as in the offline simulation. Only if this machine cannot
keep up does the engine rest for the time it is behind; `slips` counts that.
"""

import asyncio
import ctypes
import os
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from inference_energy.bench.live.live_request import LiveRequest, TruthSink
from inference_energy.bench.live.metrics import EngineMetrics
from inference_energy.bench.truth.engine import BenchEngine
from inference_energy.bench.truth.ledger import GPU_IDLE, BenchRequest

IDLE_ROW_NS = 250_000_000
BUSY_ROW_NS = 400_000_000
"""Longest time between rows of the trace, at rest and within a long step."""

MOST_BEHIND_NS = 50_000_000
STEPS_A_WAKE = 16
MOST_WAIT_AT_END_S = 0.4

_CLOCK_MONOTONIC = 1
_TIMER_ABSOLUTE = 1
_NS = 1_000_000_000


class Trace(Protocol):
    """Record of the node's power, such as `power_trace_file.TraceWriter`."""

    def append(
        self, start_ns: int, gpu_w: float, host_w: float, temperature_c: float, events: int, busy: bool | int
    ) -> None:
        """Append what holds from `start_ns` until the next row."""

    def close(self) -> None:
        """End the life now."""


class WakeTimer:
    """Wakes the event loop at a time of the monotonic clock, to a tenth of a millisecond; a new time replaces the old.

    asyncio's own timers are up to 1 ms late, because it rounds waits up to epoll's whole milliseconds. Linux has timers
    that are files (timerfd_create(2)), for which epoll waits without rounding. If the system has none, asyncio's own
    timers take over.

    Args:
        callback: called in the event loop at that time.
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


class EngineLoop:
    """Runs an engine in an event loop.

    Args:
        engine: its clock stands at now.
        loop: where to run.
        metrics: counts steps and ends.
        trace: records power; None records nothing.
        truth: records ends.

    Attributes:
        resident: whether the model is loaded; until then the GPUs draw their cold idle.
        slips: how often the engine rested because this machine could not follow.
        slipped_ns: how long it rested for that reason.
    """

    def __init__(
        self,
        engine: BenchEngine,
        loop: asyncio.AbstractEventLoop,
        metrics: EngineMetrics,
        trace: Trace | None,
        truth: TruthSink,
    ) -> None:
        self.engine = engine
        self.resident = False
        self.slips = 0
        self.slipped_ns = 0
        self._metrics = metrics
        self._trace = trace
        self._truth = truth
        self._inbox: deque[LiveRequest] = deque()
        self._begun_ns = 0
        self._row_ns = 0
        self._timer = WakeTimer(loop, self._wake)
        self._row()
        self._set_timer()

    def mark_loaded(self) -> None:
        """Note that the model is in memory from now on."""
        self._rest(time.monotonic_ns())
        self.resident = True
        self._row()

    def submit(self, request: LiveRequest) -> None:
        """Accept a request that arrives now; where nothing runs, a step begins at once."""
        request.arrival_ns = time.monotonic_ns()
        self._inbox.append(request)
        if not self.engine.busy:
            self._wake()

    def abort(self, request: LiveRequest, outcome: str = "abort") -> None:
        """Remove a request; one that has ended is left alone."""
        if request.outcome is not None:
            return
        if request in self._inbox:
            self._inbox.remove(request)
        else:
            self.engine.abort(request)
        self._end(request, outcome)

    def hang(self) -> None:
        """Block for ever: the step under way is finished, and none of its tokens is handed over."""
        while True:
            now_ns = time.monotonic_ns()
            if self.engine.busy and self.engine.now_ns <= now_ns:
                self.engine.complete()
            if not self.engine.busy:
                self._rest(now_ns)
            self._row(now_ns if self.engine.busy else None)
            self._truth.flush()
            time.sleep(IDLE_ROW_NS / 1e9)

    async def stop(self) -> None:
        """End the life after the step under way. All requests must have been aborted."""
        self._timer.close()
        if self.engine.busy:
            left_s = (self.engine.now_ns - time.monotonic_ns()) / 1e9
            await asyncio.sleep(min(MOST_WAIT_AT_END_S, max(0.0, left_s)))
            self.engine.complete()
        self._rest(time.monotonic_ns())
        if self._trace is not None:
            self._trace.close()

    def _wake(self) -> None:
        engine = self.engine
        now_ns = time.monotonic_ns()
        for _ in range(STEPS_A_WAKE):
            if engine.busy:
                due_ns = engine.now_ns
                if due_ns > now_ns:
                    break
                row, begun_ns = len(engine.segments) - 1, self._begun_ns
                decoding = engine.decoding()
                changed = engine.complete()
                # The next step first, so that its row is there before a sensor reads the trace.
                goes_on = self._begin(now_ns)
                self._deliver(row, begun_ns, due_ns, decoding, changed)
                if not goes_on:
                    break
                now_ns = time.monotonic_ns()
            elif not self._begin(now_ns):
                break
        if now_ns - self._row_ns >= IDLE_ROW_NS and not engine.busy:
            self._rest(now_ns)
            self._row()
        elif now_ns - self._row_ns >= BUSY_ROW_NS:
            self._row(now_ns)
        self._set_timer()

    def _begin(self, now_ns: int) -> bool:
        """Begin the next step where the one before ended; False where there is nothing to do."""
        engine, inbox = self.engine, self._inbox
        if not engine.has_work and not inbox:
            if self._row_ns < engine.now_ns:
                self._row()
            return False
        if not engine.has_work and inbox[0].arrival_ns > engine.now_ns:
            self._rest(inbox[0].arrival_ns)
        if now_ns - engine.now_ns > MOST_BEHIND_NS:
            behind_ns = now_ns - MOST_BEHIND_NS - engine.now_ns
            self._row()
            self._rest(engine.now_ns + behind_ns)
            self.slips += 1
            self.slipped_ns += behind_ns
        while inbox and inbox[0].arrival_ns <= engine.now_ns:
            engine.add(inbox.popleft())
        self._begun_ns = engine.now_ns
        engine.begin()
        self._row(self._begun_ns)
        return True

    def _deliver(
        self, row: int, begun_ns: int, due_ns: int, decoding: list[BenchRequest], changed: list[BenchRequest]
    ) -> None:
        """Hand over the tokens of a step: to those that decoded, then to those whose prompt it completed."""
        for request in cast("list[LiveRequest]", decoding):
            if request.outcome is None:  # an error may have ended it together with another
                request.deliver(due_ns)
        requests = cast("list[LiveRequest]", changed)
        joined = [request for request in requests if request.delivered < request.generated and request.outcome is None]
        self._metrics.step(row, begun_ns, due_ns, len(decoding), joined)
        for request in joined:
            request.deliver(due_ns)
        for request in requests:
            if request.finished and request.outcome is None:
                self._end(request, request.reason)

    def _end(self, request: LiveRequest, outcome: str) -> None:
        request.outcome = outcome
        self._metrics.ended(request, outcome)
        self._truth.ended(request)

    def _rest(self, until_ns: int) -> None:
        self.engine.rest(until_ns, None if self.resident else self.engine.physics.device.cold_idle_w)

    def _row(self, start_ns: int | None = None) -> None:
        """Append a row for the step under way, or else for the rest that begins where the log ends."""
        engine = self.engine
        log, busy = engine.segments, engine.busy
        self._row_ns = engine.now_ns if start_ns is None else start_ns
        if self._trace is None:
            return
        if busy:
            self._trace.append(self._row_ns, log.gpu_w[-1], log.host_w[-1], log.temperature_c[-1], log.events[-1], True)
            return
        device = engine.physics.device
        idle_w = device.loaded_idle_w if self.resident else device.cold_idle_w
        heat = engine.thermal
        host_w = engine.physics.engine.host_idle_w
        self._trace.append(self._row_ns, idle_w + heat.leakage_w, host_w, heat.temperature_c, GPU_IDLE, False)

    def _set_timer(self) -> None:
        engine = self.engine
        if engine.busy:
            self._timer.set(min(engine.now_ns, self._row_ns + BUSY_ROW_NS))
        else:
            self._timer.set(self._row_ns + IDLE_ROW_NS)
