"""Latencies of the requests that ended in a window, each percentile with its interval.

    TTFT        first token - sent
    TPOT        (last token - first token) / (tokens - 1), for requests of several tokens
    ITL         (arrival - arrival before) / tokens that arrived, for each of these tokens, where arrivals were recorded
    end to end  last token - sent

TTFT and end to end are also given from the schedule: there the client's own delay is inside, so a client that falls
behind cannot hide it (coordinated omission). A closed loop has no schedule, so there these are not given. Requests that
failed are apart: their end to end is end - sent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.analysis.bins import bin_edges
from inference_energy.analysis.chunks import Arrivals, gaps
from inference_energy.analysis.percentiles import PERCENTILES, Percentile, needed, percentiles
from inference_energy.analysis.validity import invalidating, judged, reason
from inference_energy.analysis.windows import Window
from inference_energy.contracts.figure import Figure, Reason

Integers = NDArray[np.int64]
Values = NDArray[np.float64]

FROM_SCHEDULE = "_from_schedule"


@dataclass(frozen=True)
class Sample:
    """Values of one latency in s, and when each occurred in ns, which tells what hangs together."""

    values_s: Values
    times_ns: Integers
    unit: str = "s"


def samples(finished: pd.DataFrame, arrived: Arrivals | None = None) -> dict[str, Sample]:
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
        computed = len(sample.values_s) and not invalidating(against)
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
    figure = judged(value, sample.unit, boundary="client", grade="counted", reasons=against, notes=notes)
    return replace(figure, interval_95=found.interval_95) if found is not None and figure.valid else figure


def _too_few(percentile: float, count: int, effective: int) -> Reason:
    worth = f", worth {effective:,} independent ones" if effective < count else ""
    return reason(
        "few_samples",
        f"Percentile {percentile:g} of {count:,} values{worth}: an upper bound at 95 % needs {needed(percentile):,}.",
    )
