"""The engine in real time, within this process: late wake-ups, long steps, and what the trace is told."""

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from inference_energy.bench.config import Node
from inference_energy.bench.live import engine_loop as serving
from inference_energy.bench.live.engine_loop import BUSY_ROW_NS, MOST_BEHIND_NS, EngineLoop
from inference_energy.bench.live.live_request import LiveRequest, TruthSink
from inference_energy.bench.live.metrics import EngineMetrics
from inference_energy.bench.truth.engine import BenchEngine
from inference_energy.bench.truth.step import StepPhysics

pytestmark = pytest.mark.slow

MS = 1_000_000


class Rows:
    """A trace in memory."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, float, bool]] = []
        self.closed = False

    def append(
        self, start_ns: int, gpu_w: float, host_w: float, temperature_c: float, events: int, busy: bool | int
    ) -> None:
        self.rows.append((start_ns, gpu_w, bool(busy)))

    def close(self) -> None:
        self.closed = True


class Listener(LiveRequest):
    """A job that remembers when its tokens were due and when they came."""

    def __init__(self, number: int, tokens: int) -> None:
        super().__init__(number, f"job{number}", 10, tokens, most_tokens=tokens, reason="length")
        self.tokens: list[tuple[int, int]] = []

    def deliver(self, due_ns: int) -> None:
        super().deliver(due_ns)
        self.tokens.append((due_ns, time.monotonic_ns()))


Scene = Callable[[EngineLoop, Rows], Any]


def play(scene: Scene, **engine: Any) -> tuple[EngineLoop, Rows]:
    """Run an engine loop with a scene in it, and stop it."""

    async def run() -> tuple[EngineLoop, Rows]:
        node = Node.parse({"engine": engine})
        made = BenchEngine(StepPhysics(node.device, node.shape, node.engine), time.monotonic_ns())
        rows = Rows()
        engine_loop = EngineLoop(made, asyncio.get_running_loop(), EngineMetrics(made, "m", False), rows, TruthSink())
        engine_loop.mark_loaded()
        await scene(engine_loop, rows)
        await engine_loop.stop()
        return engine_loop, rows

    return asyncio.run(run())


async def until_ended(*jobs: LiveRequest) -> None:
    while any(job.outcome is None for job in jobs):
        await asyncio.sleep(0.01)


def test_a_short_pause_of_the_process_is_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MOST_BEHIND_NS", 10**10)  # whatever else this machine does meanwhile
    job = Listener(1, 30)

    async def scene(engine_loop: EngineLoop, _: Rows) -> None:
        engine_loop.submit(job)
        await asyncio.sleep(0.03)
        time.sleep(0.03)  # nothing of the loop runs
        await until_ended(job)

    engine_loop, _ = play(scene)
    assert engine_loop.slips == 0
    due_ns = [due for due, _ in job.tokens]
    steps_ns = {second - first for first, second in itertools.pairwise(due_ns)}
    assert max(steps_ns) < 1.1 * min(steps_ns)  # the engine's clock knows of no pause
    assert max(came - due for due, came in job.tokens) > 10 * MS


def test_a_long_pause_puts_the_engine_off() -> None:
    job = Listener(1, 30)

    async def scene(engine_loop: EngineLoop, _: Rows) -> None:
        engine_loop.submit(job)
        await asyncio.sleep(0.03)
        time.sleep(0.3)
        await until_ended(job)

    engine_loop, rows = play(scene)
    assert engine_loop.slips >= 1
    assert engine_loop.slipped_ns > 0.3e9 - 2 * MOST_BEHIND_NS
    assert len(job.tokens) == 30
    log = engine_loop.engine.segments
    assert list(log.start_ns)[1:] == list(log.end_ns)[:-1]
    assert [row[0] for row in rows.rows] == sorted(row[0] for row in rows.rows)


def test_a_long_step_is_told_again_and_again() -> None:
    job = Listener(1, 2)

    async def scene(engine_loop: EngineLoop, _: Rows) -> None:
        engine_loop.submit(job)
        await until_ended(job)

    _, rows = play(scene, step_host_s=1.0)
    starts_ns = [start for start, _, busy in rows.rows if busy]
    gaps_ns = [second - first for first, second in itertools.pairwise(starts_ns)]
    assert len(starts_ns) >= 6
    assert min(gaps_ns) < BUSY_ROW_NS * 1.5
    assert len({power for _, power, busy in rows.rows if busy}) == 2  # one for each of the two steps
    assert rows.closed


def test_who_comes_during_a_step_waits_for_its_end() -> None:
    first, second = Listener(1, 3), Listener(2, 1)

    async def scene(engine_loop: EngineLoop, _: Rows) -> None:
        engine_loop.submit(first)
        await asyncio.sleep(0.05)
        engine_loop.submit(second)
        await until_ended(first, second)

    engine_loop, _ = play(scene, step_host_s=0.2)
    log = engine_loop.engine.segments
    begins_ns = [start for start, running in zip(log.start_ns, log.sequences, strict=True) if running]
    assert begins_ns[0] == first.arrival_ns  # nothing ran: a step begins at once
    assert [chunk[0] for chunk in second.chunks] == [1]
    assert begins_ns[1] > second.arrival_ns


@pytest.mark.parametrize("wait_s", [0.0, 0.1, 0.25])
def test_a_forgotten_request_leaves_nothing_behind(wait_s: float) -> None:
    jobs = [Listener(number, 50) for number in range(3)]

    async def scene(engine_loop: EngineLoop, _: Rows) -> None:
        for job in jobs:
            engine_loop.submit(job)
        await asyncio.sleep(wait_s)
        for job in jobs:
            engine_loop.abort(job)
            engine_loop.abort(job)

    engine_loop, _ = play(scene, step_host_s=0.15)
    assert [job.outcome for job in jobs] == ["abort"] * 3
    assert not engine_loop.engine.has_work
    assert engine_loop.engine.blocks.used == 0
