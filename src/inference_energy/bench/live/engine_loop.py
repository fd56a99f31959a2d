"""The engine in real time.

The engine's clock is virtual: a step begins where the one before ended, however late the event loop wakes. So the
delay of one wake-up is the lateness of the tokens of one step, and never adds up. Requests come in at their time of
arrival: one that came while a step ran waits for its end, as in the offline simulation. Only where this machine cannot
follow at all does the engine rest for what it is behind; `slips` counts that.
"""

import asyncio
import time
from collections import deque
from typing import Protocol, cast

from inference_energy.bench.live.live_request import LiveRequest, TruthSink
from inference_energy.bench.live.metrics import EngineMetrics
from inference_energy.bench.live.timer import WakeTimer
from inference_energy.bench.truth.engine import BenchEngine
from inference_energy.bench.truth.ledger import GPU_IDLE, BenchRequest

IDLE_ROW_NS = 250_000_000
BUSY_ROW_NS = 400_000_000
"""A row of the trace is written at least so often, at rest and within a long step."""

MOST_BEHIND_NS = 50_000_000
STEPS_A_WAKE = 16
MOST_WAIT_AT_END_S = 0.4


class Trace(Protocol):
    """Where the node's power is told; `live.trace_file.TraceWriter` is one."""

    def append(
        self, start_ns: int, gpu_w: float, host_w: float, temperature_c: float, events: int, busy: bool | int
    ) -> None:
        """Say what holds from `start_ns` until the next row."""

    def close(self) -> None:
        """End the life now."""


class EngineLoop:
    """Runs an engine in an event loop.

    Args:
        engine: its clock stands at now.
        loop: where to run.
        metrics: is told of steps and ends.
        trace: is told of power; None: nobody is.
        truth: is told of ends.

    Attributes:
        resident: whether the model is loaded; before, the GPUs draw their cold idle.
        slips: how often, and `slipped_ns` how long, the engine rested because this machine could not follow.
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
        self._alarm = WakeTimer(loop, self._wake)
        self._row()
        self._set_alarm()

    def loaded(self) -> None:
        """The model is in memory now."""
        self._rest(time.monotonic_ns())
        self.resident = True
        self._row()

    def submit(self, job: LiveRequest) -> None:
        """Take a request in, as arrived now; where nothing runs, a step begins at once."""
        job.arrival_ns = time.monotonic_ns()
        self._inbox.append(job)
        if not self.engine.busy:
            self._wake()

    def abort(self, job: LiveRequest, outcome: str = "abort") -> None:
        """Forget a request; one that has ended is left alone."""
        if job.outcome is not None:
            return
        if job in self._inbox:
            self._inbox.remove(job)
        else:
            self.engine.abort(job)
        self._end(job, outcome)

    def hang(self) -> None:
        """Never come back: what runs is finished, and no token of it is handed over."""
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
        """End the life: the step under way is waited for, the rest forgotten. All requests must have been aborted."""
        self._alarm.close()
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
                # The next step first, so that the trace tells of it before anybody looks.
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
        self._set_alarm()

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
        for job in cast("list[LiveRequest]", decoding):
            if job.outcome is None:  # an error may have ended it together with another
                job.deliver(due_ns)
        jobs = cast("list[LiveRequest]", changed)
        joined = [job for job in jobs if job.delivered < job.generated and job.outcome is None]
        self._metrics.step(row, begun_ns, due_ns, len(decoding), joined)
        for job in joined:
            job.deliver(due_ns)
        for job in jobs:
            if job.finished and job.outcome is None:
                self._end(job, job.reason)

    def _end(self, job: LiveRequest, outcome: str) -> None:
        job.outcome = outcome
        self._metrics.ended(job, outcome)
        self._truth.ended(job)

    def _rest(self, until_ns: int) -> None:
        self.engine.rest(until_ns, None if self.resident else self.engine.physics.device.cold_idle_w)

    def _row(self, start_ns: int | None = None) -> None:
        """Tell the trace of the step that is under way, or else of the rest that begins where the log ends."""
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

    def _set_alarm(self) -> None:
        engine = self.engine
        if engine.busy:
            self._alarm.set(min(engine.now_ns, self._row_ns + BUSY_ROW_NS))
        else:
            self._alarm.set(self._row_ns + IDLE_ROW_NS)
