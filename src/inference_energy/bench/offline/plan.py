"""Plan of a simulated session: the cells, schedule and prompts that a measured one gets too."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class BenchCell:
    """Load of the warm-up (`kind` is `warmup`) or of a window."""

    name: str
    kind: str
    duration_s: float
    workload: str
    arrival: Mapping[str, Any]
    ignore_eos: bool = True
    prefix_reuse: bool = False

    @property
    def users(self) -> int | None:
        """Number of users of a closed loop; None for an open one."""
        users = self.arrival.get("concurrency")
        return None if users is None else int(users)


@dataclass(frozen=True)
class SessionPlan:
    """A session and the cold idle before it.

    Attributes:
        session, machine, server, model: names.
        cells: the load, in order.
        schedule: rows of `contracts.schedule.SCHEDULE` for all cells.
        prompts: rows of `contracts.schedule.PROMPTS`; None, or without some rows, where contents do not matter: nothing
            is shared then, and answers have `max_tokens` tokens.
        cold_s, launch_s, loaded_s, post_s, settle_s: lengths of the phases without load.
        drain_s: how long a window's requests may take after its end.
        interval_s: of the power log; `metrics_interval_s`: of the server's metrics.
    """

    session: str
    machine: str
    server: str
    cells: tuple[BenchCell, ...]
    schedule: pd.DataFrame
    prompts: pd.DataFrame | None = None
    model: str = "model"
    cold_s: float = 60.0
    launch_s: float = 30.0
    loaded_s: float = 30.0
    post_s: float = 30.0
    settle_s: float = 3.0
    drain_s: float = 60.0
    interval_s: float = 0.1
    metrics_interval_s: float = 1.0

    @classmethod
    def from_spec(
        cls,
        spec: Mapping[str, Any],
        cold_s: float,
        schedule: pd.DataFrame,
        prompts: pd.DataFrame | None,
        model: str = "model",
    ) -> "SessionPlan":
        """Build from the specification of the rule `session`, and the model's key in the configuration."""
        cells = tuple(
            BenchCell(
                name=cell["name"],
                kind=cell["kind"],
                duration_s=cell["duration_s"],
                workload=cell["workload_name"],
                arrival=cell["arrival"],
                ignore_eos=cell["workload"]["ignore_eos"],
                prefix_reuse=cell["workload"]["prefix_reuse"],
            )
            for cell in spec["cells"]
        )
        return cls(
            session=spec["session"],
            machine=spec["machine"],
            server=spec["server"],
            cells=cells,
            schedule=schedule,
            prompts=prompts,
            model=model,
            cold_s=cold_s,
            loaded_s=spec["loaded_idle_s"],
            post_s=spec["post_idle_s"],
            settle_s=spec["settle_s"],
            drain_s=spec["client"]["drain_s"],
            interval_s=spec["power"]["interval_s"],
            metrics_interval_s=spec["metrics_interval_s"],
        )
