"""Cells: a session's warm-up and windows, with all settings needed to plan and send them, and the files they name."""

from collections.abc import Iterator, Sequence
from typing import Literal

from inference_energy.config.base import Section
from inference_energy.config.load.arrivals import Arrival, ScheduleArrival, TraceArrival
from inference_energy.config.load.prompts import EmpiricalLength, QuestionPrompts, SyntheticPrompts
from inference_energy.config.load.workload import Workload

WARMUP = "warmup"


class Cell(Section):
    """The warm-up or one window of load.

    Attributes:
        name: the window's key in the configuration, or `warmup`.
        kind: `warmup`, `steady`, `prefill` or `decode`.
        workload_name: key of the workload.
        workload: prompts and lengths of the requests.
        arrival: arrival process.
        duration_s: time in which requests are sent.
    """

    name: str
    kind: Literal["warmup", "steady", "prefill", "decode"]
    workload_name: str
    workload: Workload
    arrival: Arrival
    duration_s: float

    @property
    def key(self) -> str:
        """The cell's key in the configuration, for messages."""
        return WARMUP if self.kind == WARMUP else f"windows.{self.name}"


def plan_files(cells: Sequence[Cell]) -> list[str]:
    """Return the paths of the prompts, lengths, traces and schedules that the cells name, each once, sorted."""
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
