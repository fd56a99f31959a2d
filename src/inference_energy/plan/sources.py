"""The files that a session's plan is made from."""

from collections.abc import Iterator, Sequence

from inference_energy.config.load.arrivals import ScheduleArrival, TraceArrival
from inference_energy.config.load.lengths import EmpiricalLength
from inference_energy.config.load.prompts import QuestionPrompts, SyntheticPrompts
from inference_energy.plan.cells import Cell


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
