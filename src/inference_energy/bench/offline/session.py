"""A whole session on the bench in virtual time: cold idle, launch, loaded idle, load, stop, post-run idle."""

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.bench.config import Node
from inference_energy.bench.offline.client import OfflineClient
from inference_energy.bench.offline.plan import SessionPlan
from inference_energy.bench.offline.truth import SessionTruth
from inference_energy.bench.truth.engine import BenchEngine
from inference_energy.bench.truth.power_trace import power_trace
from inference_energy.bench.truth.step import StepPhysics

ORIGIN_NS = 5_000_000_000_000
BEFORE_S = 2.0
"""Time that the node and its log exist before the first phase, and after the last."""
SAMPLER_AHEAD_S = 1.0
LAUNCH_W = 40.0
"""Power above loaded idle while the model is loaded; assumed."""


class PhaseRow(TypedDict):
    """A row of phases.parquet."""

    phase: str
    cell: str | None
    start_ns: int
    end_ns: int


@dataclass
class SimulatedSession:
    """A session after its simulation.

    Attributes:
        plan: load and phases that were simulated.
        node: settings of the node.
        engines: one for each node, at the end of the session.
        client: the load client with its log.
        phases: rows of phases.parquet.
        cold_ns: start and end of the cold idle.
        log_ns: start and end of the session's power log.
        cold_log_ns: start and end of the cold idle's power log.
        origin_ns: when the node began.
        unix_ns: the wall-clock time of `origin_ns`: when the simulation was made, to the millisecond.
    """

    plan: SessionPlan
    node: Node
    engines: list[BenchEngine]
    client: OfflineClient
    phases: list[PhaseRow] = field(default_factory=list)
    cold_ns: tuple[int, int] = (0, 0)
    log_ns: tuple[int, int] = (0, 0)
    cold_log_ns: tuple[int, int] = (0, 0)
    origin_ns: int = ORIGIN_NS
    unix_ns: int = field(default_factory=lambda: time.time_ns() // 1_000_000 * 1_000_000)

    @cached_property
    def traces(self) -> list[NDArray[np.void]]:
        """The true power of each node over time, of `TRACE_DTYPE`."""
        return [power_trace(engine.segments) for engine in self.engines]

    @cached_property
    def requests(self) -> pd.DataFrame:
        """requests.parquet."""
        return self.client.log(self.plan.schedule)

    @cached_property
    def truth(self) -> SessionTruth:
        """Its true energies, tokens and powers."""
        return SessionTruth(self.node, self.engines, self.traces, self.client.sent, self.origin_ns)


def simulate(plan: SessionPlan, node: Node) -> SimulatedSession:
    """Simulate a session; the node's seed draws everything but the load.

    Raises:
        InputError: the model does not fit into the GPUs, or a request does not fit into the context.
    """
    physics = StepPhysics(node.device, node.shape, node.engine, node.tensor_parallel)
    engines = [BenchEngine(physics, ORIGIN_NS) for _ in range(node.nodes)]
    client = OfflineClient(engines, plan.schedule, plan.prompts, node.seed)
    session = SimulatedSession(plan, node, engines, client)
    cold_w = node.device.cold_idle_w

    def clock() -> int:
        return engines[0].now_ns

    def rest(duration_s: float, power_w: float | None) -> tuple[int, int]:
        start_ns = max(engine.now_ns for engine in engines)
        end_ns = start_ns + round(duration_s * 1e9)
        for engine in engines:
            engine.rest(end_ns, power_w)
        return start_ns, end_ns

    def phase(name: str, times: tuple[int, int], cell: str | None = None) -> None:
        session.phases.append({"phase": name, "cell": cell, "start_ns": times[0], "end_ns": times[1]})

    start_ns, _ = rest(BEFORE_S, cold_w)
    session.cold_ns = rest(plan.cold_s, cold_w)
    _, end_ns = rest(BEFORE_S, cold_w)
    session.cold_log_ns = (start_ns + round((BEFORE_S - SAMPLER_AHEAD_S) * 1e9), end_ns)
    session.log_ns = (clock() - round(SAMPLER_AHEAD_S * 1e9), 0)
    phase("launch", rest(plan.launch_s, node.device.loaded_idle_w + LAUNCH_W))
    rest(plan.settle_s, None)
    if plan.loaded_s:
        phase("loaded_idle", rest(plan.loaded_s, None))
    for cell in plan.cells:
        start_ns = clock()
        end_ns = start_ns + round(cell.duration_s * 1e9)
        drained_ns = client.run(cell, start_ns, plan.drain_s)
        for engine in engines:
            engine.rest(drained_ns)
        phase("warmup" if cell.kind == "warmup" else "window", (start_ns, end_ns), cell.name)
        phase("drain", (end_ns, drained_ns), cell.name)
    phase("stop", rest(1.0, None))
    rest(plan.settle_s, cold_w)
    if plan.post_s:
        phase("post_idle", rest(plan.post_s, cold_w))
    _, end_ns = rest(BEFORE_S, cold_w)
    session.log_ns = (session.log_ns[0], end_ns)
    return session
