"""Goodput: the requests that ended well within all limits of `analysis.limits`, and which limit the others broke.

TTFT and end to end count from the schedule where there is one: who waits does not care whether the client or the server
was late. The limit on ITL is for a request's longest time between two tokens. A request with one token has no TPOT and
no ITL, so it cannot break those. Failed and aborted requests are never good.

Intervals are those of the block bootstrap over the window's seconds: another window of this load would give others.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from inference_energy.analysis.bins import bin_edges
from inference_energy.analysis.chunks import Arrivals, longest_gaps_s
from inference_energy.analysis.uncertainty.bootstrap import ratio_error
from inference_energy.analysis.validity import judged, reason
from inference_energy.analysis.windows import Window
from inference_energy.config.analysis import Limits
from inference_energy.contracts.figure import Figure, Reason

Booleans = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Goodput:
    """What came of the limits: figures, the table of limits, and good requests and their tokens in each bin."""

    figures: dict[str, Figure]
    table: dict[str, Any]
    bins: dict[str, list[int]]


def goodput(
    ended: pd.DataFrame,
    arrived: Arrivals | None,
    limits: Limits,
    window: Window,
    *,
    scheduled: bool,
    reasons: list[Reason],
    notes: list[Reason],
) -> Goodput:
    """Judge the requests that ended in a window.

    Args:
        ended: their rows of requests.parquet, whatever came of them.
        arrived: arrivals, by position in `ended`; needed for a limit on ITL.
        limits: the limits.
        window: the window.
        scheduled: whether requests had a schedule.
        reasons: what invalidates latencies.
        notes: what is worth saying about them.
    """
    taken_s = _taken_s(ended, arrived, scheduled=scheduled)
    given = {name: float(limit) for name, limit in limits if limit is not None}
    ok = (ended["status"] == "ok").to_numpy(dtype=bool)
    good, table = ok.copy(), {}
    for name, limit in given.items():
        found = taken_s.get(name)
        if found is None:
            text = "The limit analysis.limits.itl_s needs times of arrivals: write chunk_times: true in the workload."
            reasons = [*reasons, reason("no_chunk_times", text)]
            table[name] = {"limit": limit, "over": None, "of": int(ok.sum())}
            continue
        # Without the latency there is nothing that broke the limit, but for a first token that never came.
        within = found <= limit
        within |= np.isnan(found) & (name in ("tpot_s", "itl_s"))
        good &= within
        table[name] = {"limit": limit, "over": int((ok & ~within).sum()), "of": int(ok.sum())}
    edges_ns = bin_edges(window.start_ns, window.end_ns)
    times_ns = ended["last_token_ns"].fillna(ended["end_ns"]).to_numpy(dtype=np.int64)
    good_bins = np.histogram(times_ns[good], bins=edges_ns)[0]
    all_bins = np.histogram(times_ns, bins=edges_ns)[0]
    lengths_s = np.diff(edges_ns) / 1e9
    count = int(good.sum())
    tokens = ended["completion_tokens"].fillna(0).to_numpy(dtype=np.int64)[good]
    token_bins = np.histogram(times_ns[good], bins=edges_ns, weights=tokens)[0].astype(np.int64)
    if not len(ended):
        reasons = [*reasons, reason("no_requests", "No request ended in the window.")]

    def figure(value: float | None, unit: str) -> Figure:
        return judged(value, unit, boundary="client", grade="counted", reasons=reasons, notes=notes)

    share = figure(count / len(ended) if len(ended) else None, "share")
    figures = {
        "good_requests": figure(count, "request"),
        "good_output_tokens": figure(int(tokens.sum()), "token"),
        "goodput_share": _bounded(share, good_bins, all_bins.astype(np.float64), 1.0),
        "goodput_requests_per_s": _bounded(figure(count / window.duration_s, "request/s"), good_bins, lengths_s),
    }
    return Goodput(figures, table, {"good_requests": good_bins.tolist(), "good_output_tokens": token_bins.tolist()})


def _taken_s(ended: pd.DataFrame, arrived: Arrivals | None, *, scheduled: bool) -> dict[str, Values]:
    begun = ended["scheduled_ns"] if scheduled else ended["sent_ns"]
    first, last = ended["first_token_ns"], ended["last_token_ns"]
    tokens = ended["completion_tokens"]
    found = {
        "ttft_s": first - begun,
        "tpot_s": (last - first) / (tokens - 1).where(tokens > 1),
        "e2e_s": last - begun,
    }
    taken = {name: values.to_numpy(dtype=np.float64, na_value=np.nan) / 1e9 for name, values in found.items()}
    return taken if arrived is None else {**taken, "itl_s": longest_gaps_s(arrived, len(ended))}


def _bounded(figure: Figure, part: "NDArray[Any]", whole: Values, most: float = np.inf) -> Figure:
    """The figure with the interval of sum(part) / sum(whole)."""
    error = ratio_error(part.astype(np.float64), whole)
    if figure.value is None or error is None or error.value <= 0:
        return figure
    freedom = error.dof if np.isfinite(error.dof) else 1e9
    half = float(stats.t.ppf(0.975, max(freedom, 1.0))) * error.value
    return replace(figure, interval_95=(max(figure.value - half, 0.0), min(figure.value + half, most)))
