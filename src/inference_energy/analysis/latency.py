"""Latencies and goodput of a window's requests, each percentile with its 95 % interval.

    TTFT        first token - sent
    TPOT        (last token - first token) / (tokens - 1), for requests of several tokens
    ITL         (chunk - chunk before) / tokens of the chunk, for each of these tokens, where chunks were recorded
    end to end  last token - sent

TTFT and end to end are also given from the schedule: there the client's own delay is inside, so a client that falls
behind cannot hide it (coordinated omission). A closed loop has no schedule, so there these are not given. Requests that
failed have figures of their own: their end to end is end - sent.

    percentile p    linear between order statistics (Hyndman and Fan's type 7)
    interval        from order statistic l to u, the binomial quantiles of n' trials with probability p, whatever the
                    distribution (Hahn, Meeker, Statistical Intervals, 1991, ch. 5)
    n'              n / deff, times (z / t)^2 for the degrees of freedom of deff (Korn, Graubard, Survey Methodology
                    24, 1998); deff is the variance of the share of values up to the percentile, by block bootstrap
                    over time (`uncertainty.budget`), over that of independent values (Woodruff, JASA 47, 1952)

Requests near in time queue behind each other, so n of them tell less than n independent ones: deff accounts for that.
Where too few values lie beyond a percentile for an upper bound, it is not given. Independent values need 6, 36, 72, 368
and 3,688 for p50, p90, p95, p99 and p99.9.

Goodput counts the requests that ended well within all limits of `analysis.slo`. TTFT and end to end count from the
schedule where there is one: a waiting user does not care whether the client or the server was late. The limit on ITL is
for a request's longest time between two tokens. A request with one token has no TPOT and no ITL, so it cannot break
those limits. Failed and aborted requests are never good. Intervals are those of the block bootstrap over the window's
seconds: another window of this load would give others.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from msgspec import structs
from numpy.typing import NDArray
from scipy import stats

from inference_energy.analysis.counts import missing_counts
from inference_energy.analysis.figures import make_figure
from inference_energy.analysis.token_times import ChunkTimes, longest_gaps_s, token_gaps
from inference_energy.analysis.uncertainty.budget import ratio_error
from inference_energy.analysis.windows import Window, bin_edges
from inference_energy.config.analysis import Slo
from inference_energy.contracts.documents.windows import LimitCount
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.reason_codes import blocking, reason

Integers = NDArray[np.int64]
Values = NDArray[np.float64]

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
TAIL = 0.025


@dataclass(frozen=True)
class Percentile:
    """A percentile.

    Attributes:
        value: percentile of the sample.
        interval_95: its interval; None where there are too few values beyond it.
        effective: number of independent values that tell as much of it.
    """

    value: float
    interval_95: tuple[float, float] | None
    effective: int


def percentiles(values: Values, times_ns: Integers, edges_ns: Integers, levels: tuple[float, ...]) -> list[Percentile]:
    """Return percentiles of a sample.

    Args:
        values: at least one; shape (n,).
        times_ns: when each occurred: values near in time are correlated; shape (n,).
        edges_ns: edges of the window's bins; values outside belong to the first or the last bin.
        levels: percentiles, from 0 to 100.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    bins = np.clip(np.searchsorted(edges_ns, times_ns[order], side="right") - 1, 0, len(edges_ns) - 2)
    counts = np.bincount(bins, minlength=len(edges_ns) - 1).astype(np.float64)
    return [_percentile(ordered, bins, counts, percentile / 100) for percentile in levels]


def values_needed(percentile: float) -> int:
    """Return how many independent values a percentile of 50 or more needs for both bounds of its interval."""
    return math.ceil(math.log(TAIL) / math.log(percentile / 100))


def _percentile(ordered: Values, bins: Integers, counts: Values, p: float) -> Percentile:
    value = float(np.percentile(ordered, 100 * p))
    effective = _effective(ordered, bins, counts, value, p)
    low = int(stats.binom.ppf(TAIL, effective, p))
    high = int(stats.binom.ppf(1 - TAIL, effective, p)) + 1
    if low < 1 or high > effective:
        return Percentile(value, None, effective)
    # The order statistics of a sample of that size lie at these ranks of the whole one.
    scale = (len(ordered) + 1) / (effective + 1)
    first = max(math.floor(low * scale), 1) - 1
    last = min(math.ceil(high * scale), len(ordered)) - 1
    return Percentile(value, (float(ordered[first]), float(ordered[last])), effective)


def _effective(ordered: Values, bins: Integers, counts: Values, value: float, p: float) -> int:
    """Return the number of independent values that tell as much of the share of values up to `value`."""
    n = len(ordered)
    below = int(np.searchsorted(ordered, value, side="right"))
    share = below / n
    independent = share * (1 - share) / n
    hits = np.bincount(bins[:below], minlength=len(counts)).astype(np.float64)
    error = ratio_error(hits, counts)
    if error is None or independent <= 0:
        return n
    deff = max(error.value**2 / independent, 1.0)
    few = 1.0
    if math.isfinite(error.dof):
        few = (stats.norm.ppf(1 - TAIL) / stats.t.ppf(1 - TAIL, max(error.dof, 1.0))) ** 2
    return int(max(n / deff * (few if deff > 1 else 1.0), 1))


FROM_SCHEDULE = "_from_schedule"

PER_TOKEN = ("tpot_s", "itl_s")
"""Limits that need the count of a request's tokens."""


@dataclass(frozen=True)
class Sample:
    """Values of one latency, and when each occurred: values near in time are correlated.

    Attributes:
        missing: why requests are not among them that should be.
    """

    values_s: Values
    times_ns: Integers
    unit: str = "s"
    missing: tuple[Reason, ...] = ()


def samples(finished: pd.DataFrame, chunks: ChunkTimes | None = None) -> dict[str, Sample]:
    """Return the latencies of requests that ended well, by name.

    Args:
        finished: their rows of requests.parquet.
        chunks: their chunks; without them there is no ITL.
    """
    missing = tuple(missing_counts(finished, "completion"))
    sent, scheduled = finished["sent_ns"], finished["scheduled_ns"]
    first, last = finished["first_token_ns"], finished["last_token_ns"]
    several = finished["completion_tokens"].fillna(0) > 1
    latencies = {
        "ttft": _sample(first - sent, last),
        "ttft_from_schedule": _sample(first - scheduled, last),
        "tpot": _sample(
            (last - first)[several] / (finished["completion_tokens"][several] - 1), last, "s/token", missing
        ),
        "e2e": _sample(last - sent, last),
        "e2e_from_schedule": _sample(last - scheduled, last),
    }
    if chunks is not None:
        seconds, tokens, times_ns = token_gaps(chunks)
        latencies["itl"] = Sample(np.repeat(seconds, tokens), np.repeat(times_ns, tokens), "s/token", missing)
    return latencies


def failed_samples(failed: pd.DataFrame) -> dict[str, Sample]:
    """Return the latencies of requests that failed after they were sent, by name; empty where there are none."""
    failed = failed[failed["sent_ns"].notna() & failed["end_ns"].notna()]
    if failed.empty:
        return {}
    sent, end = failed["sent_ns"], failed["end_ns"]
    latencies = {"failed_ttft": _sample(failed["first_token_ns"] - sent, end), "failed_e2e": _sample(end - sent, end)}
    return {name: sample for name, sample in latencies.items() if len(sample.values_s)}


def latency_figures(
    latencies: Mapping[str, Sample],
    window: Window,
    reasons: Iterable[Reason],
    notes: Iterable[Reason],
    no_schedule: Iterable[Reason] = (),
) -> dict[str, Figure]:
    """Return the percentiles as figures, such as `ttft_p50_s` and `tpot_p99_9_s`.

    Args:
        latencies: samples by name.
        window: the window in which they were taken.
        reasons: reasons that block all latencies of the window.
        notes: notes on them.
        no_schedule: reasons that block latencies from the schedule alone.
    """
    reasons, notes, no_schedule = [*reasons], [*notes], [*no_schedule]
    edges_ns = bin_edges(window.start_ns, window.end_ns)
    figures = {}
    for name, sample in latencies.items():
        blockers = [*reasons, *(no_schedule if name.endswith(FROM_SCHEDULE) else []), *sample.missing]
        computed = len(sample.values_s) and not blocking(blockers)
        computed_percentiles = percentiles(sample.values_s, sample.times_ns, edges_ns, PERCENTILES) if computed else []
        for index, level in enumerate(PERCENTILES):
            percentile = computed_percentiles[index] if computed_percentiles else None
            figures[figure_name(name, level)] = _figure(percentile, sample, level, blockers, notes)
    return figures


def figure_name(latency: str, percentile: float) -> str:
    """Return the name of a percentile among the figures."""
    return f"{latency}_p{percentile:g}_s".replace(".", "_")


def _sample(
    nanoseconds: "pd.Series[float]",
    times_ns: "pd.Series[int]",
    unit: str = "s",
    missing: tuple[Reason, ...] = (),
) -> Sample:
    known = nanoseconds.dropna()
    times = times_ns.loc[known.index].fillna(0)
    values_s = np.asarray(known.to_numpy(dtype=np.float64) / 1e9, dtype=np.float64)
    return Sample(values_s, np.asarray(times.to_numpy(dtype=np.int64), dtype=np.int64), unit, missing)


def _figure(
    percentile: Percentile | None, sample: Sample, level: float, reasons: list[Reason], notes: list[Reason]
) -> Figure:
    count = len(sample.values_s)
    if not count and not sample.missing:
        reasons = [*reasons, reason("no_requests", "No request that this could be taken from ended in the window.")]
    elif percentile is not None and percentile.interval_95 is None:
        reasons = [*reasons, _too_few(level, count, percentile.effective)]
    value = percentile.value if percentile is not None and percentile.interval_95 is not None else None
    figure = make_figure(value, sample.unit, boundary="client", grade="counted", reasons=reasons, notes=notes)
    if percentile is None or not figure.valid:
        return figure
    return structs.replace(figure, interval_95=percentile.interval_95)


def _too_few(percentile: float, count: int, effective: int) -> Reason:
    worth = f", worth {effective:,} independent ones" if effective < count else ""
    return reason(
        "few_samples",
        f"Percentile {percentile:g} of {count:,} values{worth}: an upper bound at 95 % needs "
        f"{values_needed(percentile):,}.",
    )


@dataclass(frozen=True)
class Goodput:
    """The goodput of a window: figures, requests against each limit, and good requests and tokens in each bin."""

    figures: dict[str, Figure]
    limits: dict[str, LimitCount]
    bins: dict[str, list[int]]


def goodput(
    ended: pd.DataFrame,
    chunks: ChunkTimes | None,
    slo: Slo,
    window: Window,
    *,
    scheduled: bool,
    reasons: list[Reason],
    notes: list[Reason],
) -> Goodput:
    """Count the requests of a window that kept all limits.

    Args:
        ended: rows of requests.parquet of all requests that ended in the window, well or not.
        chunks: their chunks, by position in `ended`; needed for a limit on ITL.
        slo: the limits.
        window: the window.
        scheduled: whether requests had a schedule.
        reasons: reasons that block latencies.
        notes: notes on them.
    """
    latencies_s = _latencies_s(ended, chunks, scheduled=scheduled)
    ok = (ended["status"] == "ok").to_numpy(dtype=bool)
    missing = missing_counts(ended[ok], "completion")
    good, limits = ok.copy(), {}
    for name, limit in ((name, float(limit)) for name, limit in slo if limit is not None):
        values_s = latencies_s.get(name)
        if values_s is None:
            text = "The limit analysis.slo.itl_s needs times of arrivals: write chunk_times: true in the workload."
            reasons = [*reasons, reason("no_chunk_times", text)]
            limits[name] = LimitCount(limit=limit, over=None, of=int(ok.sum()))
            continue
        if missing and name in PER_TOKEN:
            reasons = [*reasons, *missing]
            limits[name] = LimitCount(limit=limit, over=None, of=int(ok.sum()))
            continue
        # A latency that does not exist breaks no limit, except a first token that never came.
        within = values_s <= limit
        within |= np.isnan(values_s) & (name in PER_TOKEN)
        good &= within
        limits[name] = LimitCount(limit=limit, over=int((ok & ~within).sum()), of=int(ok.sum()))
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

    def figure(value: float | None, unit: str, missing: list[Reason] | None = None) -> Figure:
        why = [*reasons, *(missing or [])]
        return make_figure(value, unit, boundary="client", grade="counted", reasons=why, notes=notes)

    share = figure(count / len(ended) if len(ended) else None, "share")
    figures = {
        "good_requests": figure(count, "request"),
        "good_output_tokens": figure(int(tokens.sum()), "token", missing),
        "goodput_share": _with_bounds(share, good_bins, all_bins.astype(np.float64), 1.0),
        "goodput_requests_per_s": _with_bounds(figure(count / window.duration_s, "request/s"), good_bins, lengths_s),
    }
    return Goodput(figures, limits, {"good_requests": good_bins.tolist(), "good_output_tokens": token_bins.tolist()})


def _latencies_s(ended: pd.DataFrame, chunks: ChunkTimes | None, *, scheduled: bool) -> dict[str, Values]:
    """Return each latency that has a limit, by the limit's name; NaN where a request has none."""
    begun = ended["scheduled_ns"] if scheduled else ended["sent_ns"]
    first, last = ended["first_token_ns"], ended["last_token_ns"]
    tokens = ended["completion_tokens"]
    latencies_ns = {
        "ttft_s": first - begun,
        "tpot_s": (last - first) / (tokens - 1).where(tokens > 1),
        "e2e_s": last - begun,
    }
    latencies_s = {
        name: times.to_numpy(dtype=np.float64, na_value=np.nan) / 1e9 for name, times in latencies_ns.items()
    }
    return latencies_s if chunks is None else {**latencies_s, "itl_s": longest_gaps_s(chunks, len(ended))}


def _with_bounds(figure: Figure, part: "NDArray[np.int64]", whole: Values, most: float = np.inf) -> Figure:
    """Return the figure with the interval of sum(part) / sum(whole)."""
    error = ratio_error(part.astype(np.float64), whole)
    if figure.value is None or error is None or error.value <= 0:
        return figure
    freedom = error.dof if np.isfinite(error.dof) else 1e9
    half = float(stats.t.ppf(0.975, max(freedom, 1.0))) * error.value
    return structs.replace(figure, interval_95=(max(figure.value - half, 0.0), min(figure.value + half, most)))
