"""Percentiles of a window's requests with their 95 % intervals.

Percentiles of a window's requests with their 95 % intervals.

    percentile p    linear between order statistics (Hyndman and Fan's type 7)
    interval        from order statistic l to u, the binomial quantiles of n' trials with probability p, whatever the
                    distribution (Hahn, Meeker, Statistical Intervals, 1991, ch. 5)
    n'              n / deff, times (z / t)^2 for the degrees of freedom of deff (Korn, Graubard, Survey Methodology
                    24, 1998); deff is the variance of the share of values up to the percentile, by block bootstrap
                    over time (`uncertainty.bootstrap`), over that of independent values (Woodruff, JASA 47, 1952)

Requests near in time queue behind each other, so n of them say less than n independent ones: that is what deff is for.
Where so few lie beyond a percentile that there is no u, nothing bounds it from above, and it is not given. Independent
values need 6, 36, 72, 368 and 3,688 for p50, p90, p95, p99 and p99.9.

Latencies of the requests that ended in a window, each percentile with its interval.

    TTFT        first token - sent
    TPOT        (last token - first token) / (tokens - 1), for requests of several tokens
    ITL         (arrival - arrival before) / tokens that arrived, for each of these tokens, where arrivals were recorded
    end to end  last token - sent

TTFT and end to end are also given from the schedule: there the client's own delay is inside, so a client that falls
behind cannot hide it (coordinated omission). A closed loop has no schedule, so there these are not given. Requests that
failed are apart: their end to end is end - sent.

Goodput: the requests that ended well within all limits of `analysis.slo`, and which limit the others broke.

TTFT and end to end count from the schedule where there is one: who waits does not care whether the client or the server
was late. The limit on ITL is for a request's longest time between two tokens. A request with one token has no TPOT and
no ITL, so it cannot break those. Failed and aborted requests are never good.

Intervals are those of the block bootstrap over the window's seconds: another window of this load would give others.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from msgspec import structs
from numpy.typing import NDArray
from scipy import stats

from inference_energy.analysis.figures import blocking, make_figure, reason
from inference_energy.analysis.token_times import ChunkTimes, gaps, longest_gaps_s
from inference_energy.analysis.uncertainty.budget import ratio_error
from inference_energy.analysis.windows import Window, bin_edges
from inference_energy.config.analysis import Slo
from inference_energy.contracts.figure import Figure, Reason

Integers = NDArray[np.int64]
Values = NDArray[np.float64]

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
TAIL = 0.025


@dataclass(frozen=True)
class Percentile:
    """A percentile.

    Attributes:
        value: of the sample.
        interval_95: None where there are too few values beyond it.
        effective: how many independent values the sample is worth for it.
    """

    value: float
    interval_95: tuple[float, float] | None
    effective: int


def percentiles(values: Values, times_ns: Integers, edges_ns: Integers, wanted: tuple[float, ...]) -> list[Percentile]:
    """Percentiles of a sample.

    Args:
        values: at least one; shape (n,).
        times_ns: when each occurred, which says what hangs together; shape (n,).
        edges_ns: of bins of the window; what lies outside belongs to the first or the last.
        wanted: percentiles, from 0 to 100.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    places = np.clip(np.searchsorted(edges_ns, times_ns[order], side="right") - 1, 0, len(edges_ns) - 2)
    counts = np.bincount(places, minlength=len(edges_ns) - 1).astype(np.float64)
    return [_percentile(ordered, places, counts, percentile / 100) for percentile in wanted]


def needed(percentile: float) -> int:
    """How many independent values a percentile of 50 or more needs for both bounds of its interval."""
    return math.ceil(math.log(TAIL) / math.log(percentile / 100))


def _percentile(ordered: Values, places: Integers, counts: Values, p: float) -> Percentile:
    value = float(np.percentile(ordered, 100 * p))
    worth = _effective(ordered, places, counts, value, p)
    low = int(stats.binom.ppf(TAIL, worth, p))
    high = int(stats.binom.ppf(1 - TAIL, worth, p)) + 1
    if low < 1 or high > worth:
        return Percentile(value, None, worth)
    # The order statistics of a sample of that worth lie at these ranks of the whole one.
    scale = (len(ordered) + 1) / (worth + 1)
    first = max(math.floor(low * scale), 1) - 1
    last = min(math.ceil(high * scale), len(ordered)) - 1
    return Percentile(value, (float(ordered[first]), float(ordered[last])), worth)


def _effective(ordered: Values, places: Integers, counts: Values, value: float, p: float) -> int:
    """Number of independent values that tell as much of the share of values up to `value`."""
    n = len(ordered)
    below = int(np.searchsorted(ordered, value, side="right"))
    share = below / n
    independent = share * (1 - share) / n
    hits = np.bincount(places[:below], minlength=len(counts)).astype(np.float64)
    found = ratio_error(hits, counts)
    if found is None or independent <= 0:
        return n
    deff = max(found.value**2 / independent, 1.0)
    few = 1.0
    if math.isfinite(found.dof):
        few = (stats.norm.ppf(1 - TAIL) / stats.t.ppf(1 - TAIL, max(found.dof, 1.0))) ** 2
    return int(max(n / deff * (few if deff > 1 else 1.0), 1))


FROM_SCHEDULE = "_from_schedule"


@dataclass(frozen=True)
class Sample:
    """Values of one latency in s, and when each occurred in ns, which tells what hangs together."""

    values_s: Values
    times_ns: Integers
    unit: str = "s"


def samples(finished: pd.DataFrame, arrived: ChunkTimes | None = None) -> dict[str, Sample]:
    """The latencies of requests that ended well, by name.

    Args:
        finished: their rows of requests.parquet.
        arrived: their arrivals; without them there is no ITL.
    """
    sent, scheduled = finished["sent_ns"], finished["scheduled_ns"]
    first, last = finished["first_token_ns"], finished["last_token_ns"]
    several = finished["completion_tokens"].fillna(0) > 1
    found = {
        "ttft": _sample(first - sent, last),
        "ttft_from_schedule": _sample(first - scheduled, last),
        "tpot": _sample((last - first)[several] / (finished["completion_tokens"][several] - 1), last, "s/token"),
        "e2e": _sample(last - sent, last),
        "e2e_from_schedule": _sample(last - scheduled, last),
    }
    if arrived is not None:
        seconds, tokens, times_ns = gaps(arrived)
        found["itl"] = Sample(np.repeat(seconds, tokens), np.repeat(times_ns, tokens), "s/token")
    return found


def failed_samples(failed: pd.DataFrame) -> dict[str, Sample]:
    """The latencies of requests that failed after they were sent, by name; empty where there are none."""
    failed = failed[failed["sent_ns"].notna() & failed["end_ns"].notna()]
    if failed.empty:
        return {}
    sent, end = failed["sent_ns"], failed["end_ns"]
    found = {"failed_ttft": _sample(failed["first_token_ns"] - sent, end), "failed_e2e": _sample(end - sent, end)}
    return {name: sample for name, sample in found.items() if len(sample.values_s)}


def latency_figures(
    found: Mapping[str, Sample],
    window: Window,
    reasons: Iterable[Reason],
    notes: Iterable[Reason],
    no_schedule: Iterable[Reason] = (),
) -> dict[str, Figure]:
    """The percentiles as figures, such as `ttft_p50_s` and `tpot_p99_9_s`.

    Args:
        found: samples by name.
        window: in which they were taken.
        reasons: what invalidates latencies in this window.
        notes: what is worth saying about them.
        no_schedule: what invalidates latencies from the schedule alone.
    """
    reasons, notes, no_schedule = [*reasons], [*notes], [*no_schedule]
    edges_ns = bin_edges(window.start_ns, window.end_ns)
    figures = {}
    for name, sample in found.items():
        against = [*reasons, *(no_schedule if name.endswith(FROM_SCHEDULE) else [])]
        computed = len(sample.values_s) and not blocking(against)
        shown = percentiles(sample.values_s, sample.times_ns, edges_ns, PERCENTILES) if computed else []
        for index, percentile in enumerate(PERCENTILES):
            own = shown[index] if shown else None
            figures[figure_name(name, percentile)] = _figure(own, sample, percentile, against, notes)
    return figures


def figure_name(latency: str, percentile: float) -> str:
    """Name of a percentile among the figures."""
    return f"{latency}_p{percentile:g}_s".replace(".", "_")


def lag_s(requests: pd.DataFrame) -> dict[str, float] | None:
    """Percentiles of sent minus scheduled over the requests that had a schedule, in s; None where none had."""
    lag = (requests["sent_ns"] - requests["scheduled_ns"]).dropna().to_numpy(dtype=np.float64) / 1e9
    if not len(lag):
        return None
    return {"p50": float(np.percentile(lag, 50)), "p99": float(np.percentile(lag, 99)), "max": float(lag.max())}


def _sample(nanoseconds: "pd.Series[float]", times_ns: "pd.Series[int]", unit: str = "s") -> Sample:
    known = nanoseconds.dropna()
    times = times_ns.loc[known.index].fillna(0)
    values_s = np.asarray(known.to_numpy(dtype=np.float64) / 1e9, dtype=np.float64)
    return Sample(values_s, np.asarray(times.to_numpy(dtype=np.int64), dtype=np.int64), unit)


def _figure(
    found: Percentile | None, sample: Sample, percentile: float, against: list[Reason], notes: list[Reason]
) -> Figure:
    count = len(sample.values_s)
    if not count:
        against = [*against, reason("no_requests", "No request that this could be taken from ended in the window.")]
    elif found is not None and found.interval_95 is None:
        against = [*against, _too_few(percentile, count, found.effective)]
    value = found.value if found is not None and found.interval_95 is not None else None
    figure = make_figure(value, sample.unit, boundary="client", grade="counted", reasons=against, notes=notes)
    return structs.replace(figure, interval_95=found.interval_95) if found is not None and figure.valid else figure


def _too_few(percentile: float, count: int, effective: int) -> Reason:
    worth = f", worth {effective:,} independent ones" if effective < count else ""
    return reason(
        "few_samples",
        f"Percentile {percentile:g} of {count:,} values{worth}: an upper bound at 95 % needs {needed(percentile):,}.",
    )


Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Goodput:
    """What came of the limits: figures, the table of limits, and good requests and their tokens in each bin."""

    figures: dict[str, Figure]
    table: dict[str, Any]
    bins: dict[str, list[int]]


def goodput(
    ended: pd.DataFrame,
    arrived: ChunkTimes | None,
    limits: Slo,
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
            text = "The limit analysis.slo.itl_s needs times of arrivals: write chunk_times: true in the workload."
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
        return make_figure(value, unit, boundary="client", grade="counted", reasons=reasons, notes=notes)

    share = figure(count / len(ended) if len(ended) else None, "share")
    figures = {
        "good_requests": figure(count, "request"),
        "good_output_tokens": figure(int(tokens.sum()), "token"),
        "goodput_share": _bounded(share, good_bins, all_bins.astype(np.float64), 1.0),
        "goodput_requests_per_s": _bounded(figure(count / window.duration_s, "request/s"), good_bins, lengths_s),
    }
    return Goodput(figures, table, {"good_requests": good_bins.tolist(), "good_output_tokens": token_bins.tolist()})


def _taken_s(ended: pd.DataFrame, arrived: ChunkTimes | None, *, scheduled: bool) -> dict[str, Values]:
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
    return structs.replace(figure, interval_95=(max(figure.value - half, 0.0), min(figure.value + half, most)))
