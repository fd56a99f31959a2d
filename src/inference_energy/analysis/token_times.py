"""Arrivals of content (chunks.parquet), where a session recorded them: when which tokens of a request came.

An arrival's tokens are the rise of the running count where the server says it in every event of the request. Else the
request's tokens are dealt out by events: after event e of E have come floor(n e / E) of n tokens, since a chunk may
hold several tokens or, with an incomplete character, none.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.contracts import requests as chunks_contract
from inference_energy.contracts.io import read_metadata, read_table

Integers = NDArray[np.int64]
Values = NDArray[np.float64]

NAME = "chunks.parquet"


@dataclass(frozen=True)
class ChunkTimes:
    """Arrivals of some requests, in order of time within each request.

    Attributes:
        row: position of the request in the table they were counted for.
        times_ns: when.
        tokens: how many tokens came; a request's sum is its completion tokens.
    """

    row: Integers
    times_ns: Integers
    tokens: Integers

    def at(self, chosen: "NDArray[np.bool_]") -> "ChunkTimes":
        """Those of the requests that are chosen, by position."""
        mine = chosen[self.row]
        return ChunkTimes(self.row[mine], self.times_ns[mine], self.tokens[mine])


def read_chunks(requests: Path) -> pd.DataFrame | None:
    """The chunks.parquet beside requests.parquet; None where there is none, or one of an earlier session.

    Raises:
        InputError: it cannot be used.
    """
    path = requests.with_name(NAME)
    if not path.is_file():
        return None
    anchor = "clock_anchor"
    if read_metadata(path).get(anchor) != read_metadata(requests).get(anchor):
        return None
    return read_table(path, chunks_contract.CHUNKS_SCHEMA)


def arrivals(requests: pd.DataFrame, chunks: pd.DataFrame | None) -> ChunkTimes | None:
    """The arrivals of the requests of which the tokens are known; None where there are no chunks of any.

    Args:
        requests: rows of requests.parquet, of one cell.
        chunks: rows of chunks.parquet.
    """
    if chunks is None or chunks.empty or requests.empty:
        return None
    places = pd.Series(np.arange(len(requests)), index=requests["request_id"].to_numpy(dtype=np.int64))
    own = chunks[chunks["cell"].isin(requests["cell"].unique()) & chunks["request_id"].isin(places.index)]
    own = own[own["events"].gt(0)]
    row = places.reindex(own["request_id"].to_numpy(dtype=np.int64)).to_numpy(dtype=np.int64)
    times_ns = own["timestamp_ns"].to_numpy(dtype=np.int64)
    order = np.lexsort((times_ns, row))
    row, times_ns = row[order], times_ns[order]
    total = requests["completion_tokens"].fillna(0).to_numpy(dtype=np.int64)
    known = total[row] > 0
    if not known.any():
        return None
    events = own["events"].to_numpy(dtype=np.int64)[order]
    said = own["completion_tokens"].to_numpy(dtype=np.float64, na_value=np.nan)[order]
    counts = _cumulated(row, events, said, total)
    tokens = np.diff(counts, prepend=0)
    begins = np.diff(row, prepend=-1) != 0
    tokens[begins] = counts[begins]
    return ChunkTimes(row[known], times_ns[known], tokens[known])


def gaps(found: ChunkTimes) -> tuple[Values, Integers, Integers]:
    """Times between tokens: for each arrival but a request's first, the gap before it divided by its tokens.

    Arrivals without a token join the gap of the next.

    Returns:
        Seconds a token, the number of tokens that each stands for, and the times of the arrivals in ns.
    """
    some = found.tokens > 0
    row, times_ns, tokens = found.row[some], found.times_ns[some], found.tokens[some]
    follows = np.diff(row) == 0
    gap_s = np.diff(times_ns)[follows] / 1e9
    here = tokens[1:][follows]
    return gap_s / here, here, times_ns[1:][follows]


def longest_gaps_s(found: ChunkTimes, count: int) -> Values:
    """The longest time between tokens of each of `count` requests, by position; NaN for those that have none."""
    some = found.tokens > 0
    row = found.row[some]
    seconds, _, _ = gaps(found)
    longest = np.full(count, -np.inf)
    np.maximum.at(longest, row[1:][np.diff(row) == 0], seconds)
    return np.where(np.isfinite(longest), longest, np.nan)


def _cumulated(row: Integers, events: Integers, said: Values, total: Integers) -> Integers:
    """Tokens of each arrival's request up to and with it."""
    count = len(total)
    every_event = np.bincount(row, weights=events, minlength=count)
    before = np.concatenate(([0], np.cumsum(events)))
    first = np.searchsorted(row, row, side="left")
    so_far = before[1:] - before[first]
    by_events = total[row] * so_far // np.maximum(every_event[row].astype(np.int64), 1)
    silent = np.bincount(row, weights=np.isnan(said), minlength=count) > 0
    by_server = np.minimum(np.nan_to_num(said).astype(np.int64), total[row])
    counts = np.where(silent[row], by_events, by_server)
    # An end token shows no text, so the last count may lack it: it came with the last arrival.
    last = np.append(np.diff(row) != 0, True)
    return np.where(last, total[row], counts)
