"""When the requests, or conversations, of a cell begin, whatever its process is; and what a trace says of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import ClosedArrival, RateArrival, TraceArrival
from inference_energy.config.load.times import FixedTime
from inference_energy.plan.arrivals.draw import offsets_ns
from inference_energy.plan.arrivals.traces.read import read_trace
from inference_energy.plan.arrivals.traces.trace import Blocks
from inference_energy.plan.cells import Cell
from inference_energy.plan.seeds import generator


@dataclass(frozen=True)
class Starts:
    """The beginnings of a cell, one each for a single request or a conversation.

    Attributes:
        count: how many.
        offsets_ns: when each is due, from the cell's start; None in a closed loop.
        prompt_tokens, max_tokens: lengths that a trace gives; None: from the workload.
        blocks: which blocks of tokens each prompt is made of, in traces that say so.
        notes: what was left out, for people.
    """

    count: int
    offsets_ns: NDArray[np.int64] | None
    prompt_tokens: NDArray[np.int64] | None = None
    max_tokens: NDArray[np.int64] | None = None
    blocks: Blocks | None = None
    notes: tuple[str, ...] = ()


def starts_of(cell: Cell, seed: int) -> Starts:
    """The beginnings of a cell whose arrivals are drawn, of a closed loop, or of a trace.

    Raises:
        InputError: a trace cannot be read, or has nothing for this cell.
    """
    arrival = cell.arrival
    if isinstance(arrival, ClosedArrival):
        return Starts(_pool(arrival), None)
    if isinstance(arrival, RateArrival):
        offsets = offsets_ns(arrival, cell.duration_s, generator(seed, cell.name, "arrivals"))
        return Starts(len(offsets), offsets)
    if isinstance(arrival, TraceArrival):
        return _traced(cell, arrival)
    raise TypeError(f"{cell.where}: a schedule file has no beginnings apart from its rows")


def _pool(arrival: ClosedArrival) -> int:
    """At least one a user; two where the first waits otherwise than those after it (see `contracts.schedule`)."""
    thinks = arrival.stagger_s > 0 or not isinstance(arrival.think, FixedTime) or arrival.think.time_s > 0
    return max(arrival.pool, arrival.concurrency * (2 if thinks else 1))


def _traced(cell: Cell, arrival: TraceArrival) -> Starts:
    trace = read_trace(arrival, cell.duration_s, f"{cell.where}.arrival")
    return Starts(
        count=len(trace.offsets_ns),
        offsets_ns=trace.offsets_ns,
        prompt_tokens=trace.prompt_tokens if arrival.lengths else None,
        max_tokens=trace.output_tokens if arrival.lengths else None,
        blocks=trace.blocks if arrival.lengths else None,
        notes=trace.notes,
    )
