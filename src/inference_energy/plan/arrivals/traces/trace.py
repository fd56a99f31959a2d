"""What the formats of traces have in common: the rows as they were read, and those that a cell replays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import TraceArrival
from inference_energy.errors import InputError


@dataclass(frozen=True)
class Blocks:
    """For each prompt the ids of its blocks: those of prompt i are `ids[starts[i]:starts[i + 1]]`."""

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    block_tokens: int

    def take(self, rows: NDArray[np.int64]) -> "Blocks":
        """Those of some prompts."""
        parts = [self.ids[self.starts[row] : self.starts[row + 1]] for row in rows.tolist()]
        return Blocks.of(parts, self.block_tokens)

    @classmethod
    def of(cls, parts: Sequence[NDArray[np.int64] | list[int]], block_tokens: int) -> "Blocks":
        """From a list of ids for each prompt."""
        starts = np.concatenate(([0], np.cumsum([len(part) for part in parts], dtype=np.int64)))
        ids = np.concatenate([np.asarray(part, dtype=np.int64) for part in parts]) if parts else np.empty(0, np.int64)
        return cls(ids, starts, block_tokens)


@dataclass(frozen=True)
class Rows:
    """A trace's rows, in the order of the file.

    Attributes:
        times_s: since an origin of the trace's own.
        prompt_tokens, output_tokens: lengths, below 1 where the trace has none.
        blocks: ids of each prompt's blocks.
    """

    times_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    blocks: Blocks | None = None


@dataclass(frozen=True)
class Trace:
    """The part of a trace that a cell replays; `notes` say what was left out."""

    offsets_ns: NDArray[np.int64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    blocks: Blocks | None
    notes: tuple[str, ...]


def wanted_s(arrival: TraceArrival, duration_s: float) -> float:
    """How far into the trace the cell reaches [s of the trace]."""
    return arrival.start_s + duration_s / arrival.time_scale


def replayed(rows: Rows, arrival: TraceArrival, duration_s: float, key: str) -> Trace:
    """The rows that fall into a cell, at times from its start.

    Args:
        rows: of the trace.
        arrival: which of them, and how fast.
        duration_s: of the cell.
        key: where the arrival stands in the configuration.

    Raises:
        InputError: none falls into it.
    """
    order = np.argsort(rows.times_s, kind="stable")
    since_s = rows.times_s[order] - rows.times_s[order[0]] if len(order) else np.empty(0)
    times_s = (since_s - arrival.start_s) * arrival.time_scale
    inside = np.flatnonzero((times_s >= 0) & (times_s < duration_s))
    chosen, notes = order[inside], []
    times_s = times_s[inside]
    if arrival.lengths:
        whole = (rows.prompt_tokens[chosen] >= 1) & (rows.output_tokens[chosen] >= 1)
        if not whole.all():
            notes.append(
                f"{key}: {int((~whole).sum())} requests of the trace without a length or an answer are left out"
            )
        chosen, times_s = chosen[whole], times_s[whole]
    if arrival.max_requests is not None:
        chosen, times_s = chosen[: arrival.max_requests], times_s[: arrival.max_requests]
    if not len(chosen):
        last_s = float(since_s[-1]) if len(since_s) else 0.0
        raise InputError(
            f"{key}: no request of {arrival.path} falls into this cell; the trace is {last_s:g} s long: write another "
            "start_s or time_scale"
        )
    return Trace(
        offsets_ns=np.minimum(np.rint(times_s * 1e9).astype(np.int64), round(duration_s * 1e9) - 1),
        prompt_tokens=rows.prompt_tokens[chosen],
        output_tokens=rows.output_tokens[chosen],
        blocks=rows.blocks.take(chosen) if rows.blocks else None,
        notes=tuple(notes),
    )
