"""A window cut into bins of about a second, for what must be known of its course: fluctuation, not only the sum.

A window cut into bins of about a second, for what must be known of its course: fluctuation, not only the sum.

Windows and what falls into them: trimming, and tokens counted by their own times.

Where arrivals were recorded (`chunks`), a token counts when it arrived. Else a request's first token is at
`first_token_ns`, the others lie evenly up to `last_token_ns`. Its prompt counts where its first token is, because that
is when the server has read it. Windows are half open: [start, end).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.analysis.integration import Times
from inference_energy.analysis.token_times import ChunkTimes, arrivals
from inference_energy.config.analysis import WindowTrim
from inference_energy.errors import InputError

BIN_S = 1.0


def bin_edges(start_ns: int, end_ns: int) -> Times:
    """Edges of equal bins of about `BIN_S`, one more than there are bins; at least one bin."""
    count = max(round((end_ns - start_ns) / 1e9 / BIN_S), 1)
    return np.asarray(np.linspace(start_ns, end_ns, count + 1).round(), dtype=np.int64)


Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """A measured stretch of time, in monotonic ns."""

    name: str
    start_ns: int
    end_ns: int

    @property
    def duration_s(self) -> float:
        """Its length in s."""
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True)
class TokenTimes:
    """The token counts and times of some requests, one entry a request; counts the server did not give are 0.

    `arrived` holds the arrivals of those that have some, in order of time; `evenly` says which have none.
    """

    prompt: Integers
    cached: Integers
    completion: Integers
    has_first: NDArray[np.bool_]
    first_ns: Integers
    last_ns: Integers
    evenly: NDArray[np.bool_]
    arrived: ChunkTimes | None

    @classmethod
    def of(cls, requests: pd.DataFrame, chunks: pd.DataFrame | None = None) -> "TokenTimes":
        """From rows of requests.parquet. A request without a first token takes its end, if it gave tokens at all.

        Args:
            requests: the rows, of one cell where there are chunks.
            chunks: rows of chunks.parquet.
        """
        first = requests["first_token_ns"].fillna(requests["last_token_ns"]).fillna(requests["end_ns"])
        last = requests["last_token_ns"].fillna(first)
        answered = requests["first_token_ns"].notna() | requests["completion_tokens"].fillna(0).gt(0)
        evenly = np.ones(len(requests), dtype=bool)
        arrived = arrivals(requests, chunks)
        if arrived is not None:
            evenly[arrived.row] = False
            order = np.argsort(arrived.times_ns, kind="stable")
            arrived = ChunkTimes(arrived.row[order], arrived.times_ns[order], arrived.tokens[order])
        return cls(
            prompt=_integers(requests["prompt_tokens"]),
            cached=_integers(requests["cached_tokens"]),
            completion=_integers(requests["completion_tokens"]),
            has_first=np.asarray(answered & first.notna(), dtype=bool),
            first_ns=_integers(first),
            last_ns=np.maximum(_integers(last), _integers(first)),
            evenly=evenly,
            arrived=arrived,
        )

    def completion_before(self, time_ns: int) -> Integers:
        """Completion tokens of each request before a time.

        Those that arrived before it. Where no arrivals are known, token k of n (from 0) is at first + k (last - first)
        / (n - 1), so the number before t is the ceiling of (t - first) (n - 1) / (last - first), within 0 and n. Whole
        numbers throughout.
        """
        return self._spread_before(time_ns) + self._arrived(None, time_ns)

    def completion_inside(self, start_ns: int, end_ns: int) -> Integers:
        """Completion tokens of each request in [start, end)."""
        spread = self._spread_before(end_ns) - self._spread_before(start_ns)
        return spread + self._arrived(start_ns, end_ns)

    def _arrived(self, start_ns: int | None, end_ns: int) -> Integers:
        """Tokens of each request that arrived in [start, end), or before its end."""
        found = self.arrived
        if found is None:
            return np.zeros(len(self.completion), dtype=np.int64)
        first = 0 if start_ns is None else int(np.searchsorted(found.times_ns, start_ns, side="left"))
        last = int(np.searchsorted(found.times_ns, end_ns, side="left"))
        own = slice(first, max(first, last))
        counted = np.bincount(found.row[own], weights=found.tokens[own], minlength=len(self.completion))
        return np.asarray(counted, dtype=np.int64)

    def _spread_before(self, time_ns: int) -> Integers:
        n = self.completion
        span = self.last_ns - self.first_ns
        elapsed = time_ns - self.first_ns
        together = (span == 0) | (n <= 1)
        divisor = np.where(together, 1, span)
        count = np.where(together, np.where(elapsed > 0, n, 0), -((-elapsed * (n - 1)) // divisor))
        return np.where(self.has_first & self.evenly, np.clip(count, 0, n), 0).astype(np.int64)

    def first_inside(self, start_ns: int, end_ns: int) -> NDArray[np.bool_]:
        """Which requests have their first token in [start, end)."""
        inside: NDArray[np.bool_] = self.has_first & (self.first_ns >= start_ns) & (self.first_ns < end_ns)
        return inside

    def prompt_inside(self, start_ns: int, end_ns: int) -> Integers:
        """Prompt tokens of each request, where its first token is in [start, end)."""
        return np.where(self.first_inside(start_ns, end_ns), self.prompt, 0)

    def cached_inside(self, start_ns: int, end_ns: int) -> Integers:
        """Prompt tokens from the cache, where the request's first token is in [start, end)."""
        return np.where(self.first_inside(start_ns, end_ns), self.cached, 0)


def trimmed_windows(phases: pd.DataFrame, config: WindowTrim) -> list[Window]:
    """The windows of a session, in order, with their starts and ends cut off.

    Raises:
        InputError: a window is not longer than what is to be cut from it.
    """
    windows = []
    for row in phases[phases["phase"] == "window"].sort_values("start_ns").itertuples():
        start_ns, end_ns = int(str(row.start_ns)), int(str(row.end_ns))
        trims_s = config.trim_start_s + config.trim_end_s
        if (end_ns - start_ns) / 1e9 <= trims_s:
            raise InputError(
                f"window {row.cell} is {(end_ns - start_ns) / 1e9:.3g} s long, no longer than analysis.trim_start_s "
                f"({config.trim_start_s:g}) and analysis.trim_end_s ({config.trim_end_s:g}) together: write a smaller "
                "analysis.trim_start_s, or measure longer windows"
            )
        windows.append(
            Window(str(row.cell), start_ns + round(config.trim_start_s * 1e9), end_ns - round(config.trim_end_s * 1e9))
        )
    return windows


MOST_SNAPPED_S = 3.0


def align_to_readings(window: Window, readings_ns: Integers) -> Window:
    """The window between the first and the last of the readings in it, so that no energy is interpolated at its edges.

    It stays as it is where that would cut off more than `MOST_SNAPPED_S` at an end.
    """
    inside = readings_ns[(readings_ns >= window.start_ns) & (readings_ns <= window.end_ns)]
    if len(inside) < 2:
        return window
    start_ns, end_ns = int(inside[0]), int(inside[-1])
    if max(start_ns - window.start_ns, window.end_ns - end_ns) / 1e9 > MOST_SNAPPED_S:
        return window
    return Window(window.name, start_ns, end_ns)


def phase_times(phases: pd.DataFrame, name: str) -> tuple[int, int] | None:
    """Start and end of a phase that occurs once, or None."""
    rows = phases[phases["phase"] == name]
    if rows.empty:
        return None
    return int(rows["start_ns"].iloc[0]), int(rows["end_ns"].iloc[0])


def _integers(column: "pd.Series[int]") -> Integers:
    return np.asarray(column.fillna(0).to_numpy(dtype=np.int64, na_value=0), dtype=np.int64)
