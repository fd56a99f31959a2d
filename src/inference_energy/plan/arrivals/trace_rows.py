"""Rows of a trace, whatever its format: when reading them ends, and whether their times are in the format's unit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import TimeUnit, TraceArrival
from inference_energy.contracts.outside import path_name
from inference_energy.errors import InputError, Setting

UNITS_S: dict[TimeUnit, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@dataclass(frozen=True)
class Blocks:
    """The ids of each prompt's blocks: prompt i has `ids[starts[i]:starts[i + 1]]`."""

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    block_tokens: int

    def take(self, rows: NDArray[np.int64]) -> "Blocks":
        """Return the blocks of some prompts."""
        parts = [self.ids[self.starts[row] : self.starts[row + 1]] for row in rows.tolist()]
        return Blocks.from_lists(parts, self.block_tokens)

    @classmethod
    def from_lists(cls, parts: Sequence[NDArray[np.int64] | list[int]], block_tokens: int) -> "Blocks":
        """Build the blocks from a list of ids per prompt."""
        starts = np.concatenate(([0], np.cumsum([len(part) for part in parts], dtype=np.int64)))
        ids = np.concatenate([np.asarray(part, dtype=np.int64) for part in parts]) if parts else np.empty(0, np.int64)
        return cls(ids, starts, block_tokens)


@dataclass(frozen=True)
class Rows:
    """A trace's rows, in the order of the file.

    Attributes:
        times_s: time since the trace's own origin.
        prompt_tokens, output_tokens: lengths; below 1 if the trace has none.
        blocks: ids of each prompt's blocks.
        notes: what was left out or is not as it should be.
    """

    times_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    blocks: Blocks | None = None
    notes: tuple[str, ...] = ()


STEP_BACK_S = 60.0
"""A trace in which a request is later than a following one by more is not in the order of time, and is read whole."""
LOOK_AHEAD = 20_000
"""Rows read at least beyond the cell's end, to find out whether the trace is in order: two hours of most of them."""


class Progress:
    """Decides whether a trace must be read further: past the cell's end, or to its own end if it is not in order."""

    def __init__(self, until_s: float) -> None:
        self._until_s = until_s
        self._rows_beyond = 0
        self._origin_s = self._latest_s = math.nan
        self._in_order = True

    def needs_more(self, times_s: NDArray[np.float64]) -> bool:
        """Take the next rows' times, and return whether the rows after them can fall into the cell."""
        if math.isnan(self._origin_s):
            self._origin_s = self._latest_s = float(times_s[0])
        latest_s = np.maximum.accumulate(np.concatenate(([self._latest_s], times_s)))[1:]
        self._latest_s = float(latest_s[-1])
        self._in_order = self._in_order and bool((latest_s - times_s <= STEP_BACK_S).all())
        self._origin_s = min(self._origin_s, float(times_s.min()))
        self._rows_beyond += int((latest_s - self._origin_s > self._until_s + STEP_BACK_S).sum())
        return not self._in_order or self._rows_beyond < LOOK_AHEAD


class Unit(NamedTuple):
    """How a format writes times.

    Attributes:
        unit: unit of time.
        longest_gap_s: median of the gaps between requests above which it is doubtful that a file has this unit.
        highest_qps: mean rate above which it is doubtful.
    """

    unit: TimeUnit
    longest_gap_s: float
    highest_qps: float


# Mooncake's published files have 3 to 7 requests/s; BurstGPT has one in 4 s, with minutes between some.
PUBLISHED: dict[str, Unit] = {
    "burstgpt": Unit("s", 600.0, math.inf),
    "mooncake": Unit("ms", 60.0, 20.0),
    "bailian": Unit("s", 60.0, math.inf),
}
SHORTEST_S = 1.0
"""Shortest trace in ms that is not doubtful: the requests of a minute, in s, take 0.06 s if read as ms."""
DATES_S = (1e9, 4e9)
"""Seconds since 1970 of the years 2001 to 2096, by which times that count from 1970 are recognized."""
FINER: dict[TimeUnit, tuple[TimeUnit, ...]] = {"s": ("ms", "us", "ns"), "ms": ("us", "ns")}


def check_unit(arrival: TraceArrival, first: float, times_s: NDArray[np.float64], key: str) -> None:
    """Refuse times that are hardly in the format's unit, unless the configuration states the unit.

    Args:
        arrival: the trace.
        first: the first time, as the file has it.
        times_s: the times that were read, in the format's unit converted to s.
        key: configuration key of the arrival.

    Raises:
        InputError: with the units that the configuration may state.
    """
    unit, longest_gap_s, highest_qps = PUBLISHED[arrival.format]
    if arrival.time_unit is not None or len(times_s) < 2:
        return
    for other, unit_s in UNITS_S.items():
        if other != unit and DATES_S[0] <= first * unit_s <= DATES_S[1]:
            text = f"times such as {first:.0f} count {other} since 1970, and {arrival.format} has times in {unit}"
            raise InputError(f"{path_name(arrival.path)}: {text}", key=key, write=time_units(key, other))
    problem, others = "", FINER[unit]
    span_s, gap_s = float(np.ptp(times_s)), float(np.median(np.diff(np.sort(times_s))))
    if gap_s > longest_gap_s:
        problem = f"requests are {gap_s:.3g} s apart"
    elif (unit == "ms" and 0 < span_s < SHORTEST_S) or len(times_s) - 1 > highest_qps * span_s > 0:
        problem, others = f"{len(times_s)} requests come within {span_s:.3g} s", ("s",)
    if problem:
        text = f"{path_name(arrival.path)}: if its times are in {unit}, {problem}; state the unit of time"
        raise InputError(text, key=key, write=time_units(key, unit, *others))


def time_units(key: str, *units: TimeUnit) -> tuple[Setting, ...]:
    """Return the settings that state a unit of time, for an error."""
    return tuple(Setting(f"{key}.time_unit", unit) for unit in units)
