"""Small sessions: what is asked of which node, and the files they leave."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from inference_energy.bench.config import Node
from inference_energy.bench.offline.plan import BenchCell, SessionPlan
from inference_energy.bench.offline.raw_files import write_session
from inference_energy.bench.offline.session import SimulatedSession
from inference_energy.contracts.schedule import PROMPTS, SCHEDULE
from inference_energy.stages.chain import RawSession

MACHINE, SESSION, SERVER = "here", "small", "virtual"
TIMES = {"cold_s": 10.0, "launch_s": 5.0, "loaded_s": 10.0, "post_s": 8.0, "settle_s": 4.0, "drain_s": 30.0}


@dataclass(frozen=True)
class Load:
    """One cell: requests at random times (`rate_qps`), or users in a closed loop."""

    name: str = "load"
    kind: str = "steady"
    duration_s: float = 10.0
    rate_qps: float = 4.0
    users: int | None = None
    prompt: int = 100
    output: int = 40
    pool: int = 12
    ignore_eos: bool = True
    prefix_reuse: bool = False

    def cell(self) -> BenchCell:
        closed = {"process": "closed", "concurrency": self.users}
        arrival = closed if self.users else {"process": "poisson", "rate_qps": self.rate_qps}
        return BenchCell(self.name, self.kind, self.duration_s, "some", arrival, self.ignore_eos, self.prefix_reuse)

    def arrivals_ns(self) -> list[int | None]:
        if self.users:
            return [None] * self.pool
        gaps_s = np.random.default_rng(3).exponential(1 / self.rate_qps, round(self.rate_qps * self.duration_s * 3))
        times_s = np.cumsum(gaps_s)
        return [round(float(at) * 1e9) for at in times_s[times_s < self.duration_s]]


WARMUP = Load("warmup", "warmup", 3.0)


def plan(*loads: Load, contents: Sequence[Any] = (), **times: float) -> SessionPlan:
    """A session of these loads; `contents` are the prompts (ids or texts), dealt to the requests in turn."""
    rows: list[dict[str, Any]] = []
    for load in loads:
        for arrival_ns in load.arrivals_ns():
            row = {"arrival_ns": arrival_ns, "prompt_tokens": load.prompt, "max_tokens": load.output}
            rows.append({"request_id": len(rows), "cell": load.name, "prompt_id": 100 + len(rows), **row})
    prompts = None
    if contents:
        given = [(row["prompt_id"], contents[place % len(contents)]) for place, row in enumerate(rows)]
        made = [
            {"prompt_id": number, "workload": "some", "text" if isinstance(content, str) else "token_ids": content}
            for number, content in given
        ]
        prompts = pd.DataFrame(made, columns=PROMPTS.names, dtype=object)
    schedule = pd.DataFrame(rows, columns=SCHEDULE.names)
    cells = tuple(load.cell() for load in loads)
    return SessionPlan(SESSION, MACHINE, SERVER, cells, schedule, prompts, **{**TIMES, **times})


def node(**settings: Any) -> Node:
    """A node whose cards have no error, unless it is asked for."""
    sensors = settings.get("sensors", {})
    nvml = {"gain": 1.0, "offset_w": 0.0, **sensors.get("nvml", {})}
    return Node.parse({"seed": 5, **settings, "sensors": {**sensors, "nvml": nvml}})


def phase(session: SimulatedSession, name: str, cell: str | None = None) -> tuple[int, int]:
    """Start and end of a phase."""
    for row in session.phases:
        if (row["phase"], row["cell"]) == (name, cell):
            return int(str(row["start_ns"])), int(str(row["end_ns"]))
    raise AssertionError(f"no phase {name} of {cell}")


def written(session: SimulatedSession, folder: Path) -> RawSession:
    """The files of a session."""
    write_session(session, folder)
    return RawSession.below(folder, MACHINE, SESSION, SERVER)
