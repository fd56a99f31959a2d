"""Times of tokens: by their chunks (chunks.parquet) where a session recorded them, else evenly over the answer.

The tokens of a chunk are the rise of the running count where the server states it in every event of the request. Else
the request's tokens are dealt out by events: after event e of E, floor(n e / E) of n tokens have come, since a chunk
may hold several tokens or, with an incomplete character, none.

Without chunks a request's first token is at `first_token_ns` and the others lie evenly up to `last_token_ns`. A prompt
counts where its first token is, because by then the server has read it. Windows are half open: [start, end).
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
    """Chunks of some requests, in order of time within each request.

    Attributes:
        row: position of the request in the table that they were counted for.
        times_ns: when each came.
        tokens: tokens of each; a request's sum is its completion tokens.
    """

    row: Integers
    times_ns: Integers
    tokens: Integers


@dataclass(frozen=True)
class TokenTimes:
    """Token counts and times of some requests, one entry a request; counts that the server did not give are 0.

    Attributes:
        prompt, cached, completion: tokens of each request.
        has_first: whether the request has a first token.
        first_ns, last_ns: times of its first and last token.
        evenly: whether its chunks are not known, so that its tokens lie evenly.
        chunks: chunks of the others, in order of time; None where none are known.
    """

    prompt: Integers
    cached: Integers
    completion: Integers
    has_first: NDArray[np.bool_]
    first_ns: Integers
    last_ns: Integers
    evenly: NDArray[np.bool_]
    chunks: ChunkTimes | None

    @classmethod
    def from_requests(cls, requests: pd.DataFrame, chunks: pd.DataFrame | None = None) -> "TokenTimes":
        """Return the token times of rows of requests.parquet.

        A request without a first token, such as one without a stream, takes its end, if it gave tokens at all.

        Args:
            requests: the rows, of one window where there are chunks.
            chunks: rows of chunks.parquet.
        """
        first = requests["first_token_ns"].fillna(requests["last_token_ns"]).fillna(requests["end_ns"])
        last = requests["last_token_ns"].fillna(first)
        answered = requests["first_token_ns"].notna() | requests["completion_tokens"].fillna(0).gt(0)
        evenly = np.ones(len(requests), dtype=bool)
        times = chunk_times(requests, chunks)
        if times is not None:
            evenly[times.row] = False
            order = np.argsort(times.times_ns, kind="stable")
            times = ChunkTimes(times.row[order], times.times_ns[order], times.tokens[order])
        return cls(
            prompt=_integers(requests["prompt_tokens"]),
            cached=_integers(requests["cached_tokens"]),
            completion=_integers(requests["completion_tokens"]),
            has_first=np.asarray(answered & first.notna(), dtype=bool),
            first_ns=_integers(first),
            last_ns=np.maximum(_integers(last), _integers(first)),
            evenly=evenly,
            chunks=times,
        )

    def completion_inside(self, start_ns: int, end_ns: int) -> Integers:
        """Return the completion tokens of each request in [start, end).

        Without chunks, token k of n (from 0) is at first + k (last - first) / (n - 1), so the number before t is the
        ceiling of (t - first) (n - 1) / (last - first), within 0 and n; computed in whole numbers throughout.
        """
        spread = self._spread_before(end_ns) - self._spread_before(start_ns)
        return spread + self._in_chunks(start_ns, end_ns)

    def first_inside(self, start_ns: int, end_ns: int) -> NDArray[np.bool_]:
        """Return which requests have their first token in [start, end)."""
        inside: NDArray[np.bool_] = self.has_first & (self.first_ns >= start_ns) & (self.first_ns < end_ns)
        return inside

    def prompt_inside(self, start_ns: int, end_ns: int) -> Integers:
        """Return the prompt tokens of each request whose first token is in [start, end), 0 for the others."""
        return np.where(self.first_inside(start_ns, end_ns), self.prompt, 0)

    def cached_inside(self, start_ns: int, end_ns: int) -> Integers:
        """Return the cached prompt tokens of each request whose first token is in [start, end), 0 for the others."""
        return np.where(self.first_inside(start_ns, end_ns), self.cached, 0)

    def _in_chunks(self, start_ns: int, end_ns: int) -> Integers:
        """Return the tokens of each request whose chunks came in [start, end)."""
        chunks = self.chunks
        if chunks is None:
            return np.zeros(len(self.completion), dtype=np.int64)
        first = int(np.searchsorted(chunks.times_ns, start_ns, side="left"))
        last = int(np.searchsorted(chunks.times_ns, end_ns, side="left"))
        inside = slice(first, max(first, last))
        counts = np.bincount(chunks.row[inside], weights=chunks.tokens[inside], minlength=len(self.completion))
        return np.asarray(counts, dtype=np.int64)

    def _spread_before(self, time_ns: int) -> Integers:
        n = self.completion
        span = self.last_ns - self.first_ns
        elapsed = time_ns - self.first_ns
        together = (span == 0) | (n <= 1)
        divisor = np.where(together, 1, span)
        count = np.where(together, np.where(elapsed > 0, n, 0), -((-elapsed * (n - 1)) // divisor))
        return np.where(self.has_first & self.evenly, np.clip(count, 0, n), 0).astype(np.int64)


def read_chunks(requests: Path) -> pd.DataFrame | None:
    """Read the chunks.parquet beside requests.parquet; None where there is none, or one of an earlier session.

    Raises:
        InputError: the file cannot be used.
    """
    path = requests.with_name(NAME)
    if not path.is_file():
        return None
    anchor = "clock_anchor"
    if read_metadata(path).get(anchor) != read_metadata(requests).get(anchor):
        return None
    return read_table(path, chunks_contract.CHUNKS_SCHEMA)


def chunk_times(requests: pd.DataFrame, chunks: pd.DataFrame | None) -> ChunkTimes | None:
    """Return the chunks of the requests whose token counts are known; None where there is none.

    Args:
        requests: rows of requests.parquet, of one window.
        chunks: rows of chunks.parquet.
    """
    if chunks is None or chunks.empty or requests.empty:
        return None
    positions = pd.Series(np.arange(len(requests)), index=requests["request_id"].to_numpy(dtype=np.int64))
    rows = chunks[chunks["cell"].isin(requests["cell"].unique()) & chunks["request_id"].isin(positions.index)]
    rows = rows[rows["events"].gt(0)]
    row = positions.reindex(rows["request_id"].to_numpy(dtype=np.int64)).to_numpy(dtype=np.int64)
    times_ns = rows["timestamp_ns"].to_numpy(dtype=np.int64)
    order = np.lexsort((times_ns, row))
    row, times_ns = row[order], times_ns[order]
    total = requests["completion_tokens"].fillna(0).to_numpy(dtype=np.int64)
    counted = total[row] > 0
    if not counted.any():
        return None
    events = rows["events"].to_numpy(dtype=np.int64)[order]
    running = rows["completion_tokens"].to_numpy(dtype=np.float64, na_value=np.nan)[order]
    counts = _cumulated(row, events, running, total)
    tokens = np.diff(counts, prepend=0)
    begins = np.diff(row, prepend=-1) != 0
    tokens[begins] = counts[begins]
    return ChunkTimes(row[counted], times_ns[counted], tokens[counted])


def token_gaps(chunks: ChunkTimes) -> tuple[Values, Integers, Integers]:
    """Return times between tokens: for each chunk but a request's first, the gap before it divided by its tokens.

    Chunks without a token join the gap of the next.

    Returns:
        Seconds a token, the number of tokens that each stands for, and the times of the chunks in ns.
    """
    filled = chunks.tokens > 0
    row, times_ns, tokens = chunks.row[filled], chunks.times_ns[filled], chunks.tokens[filled]
    follows = np.diff(row) == 0
    gap_s = np.diff(times_ns)[follows] / 1e9
    counts = tokens[1:][follows]
    return gap_s / counts, counts, times_ns[1:][follows]


def longest_gaps_s(chunks: ChunkTimes, count: int) -> Values:
    """Return the longest time between tokens of each of `count` requests, by position; NaN for those without one."""
    row = chunks.row[chunks.tokens > 0]
    seconds, _, _ = token_gaps(chunks)
    longest = np.full(count, -np.inf)
    np.maximum.at(longest, row[1:][np.diff(row) == 0], seconds)
    return np.where(np.isfinite(longest), longest, np.nan)


def _cumulated(row: Integers, events: Integers, running: Values, total: Integers) -> Integers:
    """Return the tokens of each chunk's request up to and including the chunk.

    Args:
        row: position of the request of each chunk.
        events: events in each chunk.
        running: running count that the server states; NaN where it does not.
        total: completion tokens of each request.
    """
    count = len(total)
    every_event = np.bincount(row, weights=events, minlength=count)
    before = np.concatenate(([0], np.cumsum(events)))
    first = np.searchsorted(row, row, side="left")
    events_until = before[1:] - before[first]
    by_events = total[row] * events_until // np.maximum(every_event[row].astype(np.int64), 1)
    silent = np.bincount(row, weights=np.isnan(running), minlength=count) > 0
    by_server = np.minimum(np.nan_to_num(running).astype(np.int64), total[row])
    counts = np.where(silent[row], by_events, by_server)
    # An end token shows no text, so the last count may lack it: it came with the last chunk.
    last = np.append(np.diff(row) != 0, True)
    return np.where(last, total[row], counts)


def _integers(column: "pd.Series[int]") -> Integers:
    return np.asarray(column.fillna(0).to_numpy(dtype=np.int64, na_value=0), dtype=np.int64)
