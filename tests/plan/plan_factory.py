"""Cells, and what is planned for them."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from inference_energy.config.load.arrivals import Arrival
from inference_energy.plan.cells import Cell
from inference_energy.plan.schedule import make_prompts, make_schedule, session_requests

POISSON = {"process": "poisson", "rate_qps": 20.0}
SYNTHETIC = {"source": "synthetic"}
WORDS = {"source": "synthetic", "form": "words", "length": {"distribution": "uniform", "minimum": 3, "maximum": 9}}


def arrival(**keys: Any) -> Any:
    """An arrival process from its keys."""
    return TypeAdapter(Arrival).validate_python(keys)


def cell(
    name: str = "w",
    *,
    arrival: dict[str, Any] = POISSON,
    duration_s: float = 60.0,
    prompts: dict[str, Any] = SYNTHETIC,
    workload_name: str = "chat",
    **workload: Any,
) -> Cell:
    """A cell, as the specification of a rule brings it."""
    return Cell.model_validate(
        {
            "name": name,
            "kind": "steady",
            "workload_name": workload_name,
            "workload": {"prompts": prompts, **workload},
            "arrival": arrival,
            "duration_s": duration_s,
        }
    )


def plan(*cells: Cell, seed: int = 1, vocabulary: int | None = 32_000) -> tuple[pa.Table, pa.Table]:
    """Prompts and schedule of a session."""
    prompts = make_prompts(cells, seed, vocabulary)
    return prompts, make_schedule(session_requests(cells, seed), prompts.to_batches())


def rows(table: pa.Table, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows of some columns."""
    return list(zip(*(table[name].to_pylist() for name in columns), strict=True))
