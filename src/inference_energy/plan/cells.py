"""Cells: the stretches of load of a session, with everything needed to plan and send them.

Cells: the stretches of load of a session, with everything needed to plan and send them.

The files that a session's plan is made from.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from inference_energy.config.load.arrivals import Arrival, ScheduleArrival, TraceArrival
from inference_energy.config.load.prompts import EmpiricalLength, QuestionPrompts, SyntheticPrompts
from inference_energy.config.load.workload import LoadPhase, Workload

WARMUP = "warmup"


@dataclass(frozen=True)
class Cell:
    """One stretch of load.

    Attributes:
        name: the window's key in the configuration, or `warmup`.
        kind: `warmup`, `steady`, `prefill` or `decode`.
        workload_name: key of the workload.
        workload: what requests ask.
        arrival: arrival process.
        duration_s: how long requests are sent.
    """

    name: str
    kind: str
    workload_name: str
    workload: Workload
    arrival: Arrival
    duration_s: float

    @property
    def where(self) -> str:
        """Where it stands in the configuration, for messages."""
        return WARMUP if self.kind == WARMUP else f"windows.{self.name}"

    def as_dict(self) -> dict[str, Any]:
        """The cell as JSON holds it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "workload_name": self.workload_name,
            "workload": self.workload.model_dump(),
            "arrival": self.arrival.model_dump(),
            "duration_s": self.duration_s,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Cell":
        """The cell that `as_dict` wrote."""
        phase = LoadPhase(
            workload=content["workload_name"], arrival=content["arrival"], duration_s=content["duration_s"]
        )
        return cls(
            name=content["name"],
            kind=content["kind"],
            workload_name=content["workload_name"],
            workload=Workload.model_validate(content["workload"]),
            arrival=phase.arrival,
            duration_s=phase.duration_s,
        )


def plan_files(cells: Sequence[Cell]) -> list[str]:
    """Paths of the prompts, lengths, traces and schedules that the cells name, each once, sorted."""
    return sorted({path for cell in cells for path in _files(cell)})


def _files(cell: Cell) -> Iterator[str]:
    prompts, arrival = cell.workload.prompts, cell.arrival
    if isinstance(prompts, SyntheticPrompts):
        lengths = [prompts.length, cell.workload.output_length]
    else:
        if not isinstance(prompts, QuestionPrompts):
            yield prompts.path
        lengths = [cell.workload.output_length]
    yield from (length.path for length in lengths if isinstance(length, EmpiricalLength))
    if isinstance(arrival, TraceArrival | ScheduleArrival):
        yield arrival.path
    if isinstance(arrival, ScheduleArrival) and arrival.prompts is not None:
        yield arrival.prompts
