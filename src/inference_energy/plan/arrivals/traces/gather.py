"""Batches of a trace's columns into rows, reading no further than needed."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inference_energy.plan.arrivals.traces.trace import Rows


def gather(batches: Iterable[tuple[pa.Array, pa.Array, pa.Array]], until_s: float) -> Rows:
    """Rows from batches of times in s, prompt lengths and answer lengths.

    Rows without a time are left out. Traces are in the order of time but for small slips, so the first batch that lies
    wholly beyond `until_s` after the first one ends the reading.
    """
    parts: list[tuple[NDArray[np.float64], ...]] = []
    origin_s = None
    for batch in batches:
        times_s, prompt_tokens, output_tokens = (column.to_numpy(zero_copy_only=False) for column in batch)
        known = ~np.isnan(times_s)
        if not known.any():
            continue
        first_s = float(times_s[known].min())
        origin_s = first_s if origin_s is None else origin_s
        if first_s - origin_s > until_s:
            break
        parts.append((times_s[known], prompt_tokens[known], output_tokens[known]))
    if not parts:
        return Rows(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
    times_s, prompt_tokens, output_tokens = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Rows(times_s, _whole(prompt_tokens), _whole(output_tokens))


def _whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.nan_to_num(values, nan=0.0).astype(np.int64)
