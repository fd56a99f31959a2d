"""The server's own counters and gauges (server_metrics.parquet), by quantity, for every engine.

A counter is read once a scrape. Its value at a time between two scrapes is interpolated; the true one lies between
theirs.

The time that requests waited in the server's queue comes from its own histogram over the window:

    mean          sum / count of the histogram's rise: exact
    percentile    linear within its bucket, as if the waits lay evenly there: interpolated

A server's buckets are wide. A percentile in the first, which begins at 0, could be anything up to its bound, and one in
the last has no upper bound: these are not given. The others carry their bucket as interval.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from msgspec import structs
from numpy.typing import NDArray

from inference_energy.analysis.figures import make_figure
from inference_energy.analysis.latency import PERCENTILES, figure_name
from inference_energy.contracts.engine_metrics import Engine, engine_of
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.reason_codes import reason

Integers = NDArray[np.int64]
Values = NDArray[np.float64]
Series = tuple[Integers, Values]

_NONE: Series = (np.zeros(0, dtype=np.int64), np.zeros(0))


@dataclass(frozen=True)
class Histogram:
    """The rise of a histogram.

    Attributes:
        bounds: upper bounds of its buckets, `inf` the last.
        cumulated: number of values up to each.
        total: sum of the values.
        count: number of values.
    """

    bounds: Values
    cumulated: Values
    total: float
    count: float


class ServerMetrics:
    """The metrics of a session.

    Args:
        rows: rows of server_metrics.parquet.

    Attributes:
        engine: the serving engine, with the names of its metrics.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        self._rows = {str(name): own for name, own in rows.groupby("name", sort=False)}
        self._series: dict[str, Series] = {}
        self.engine: Engine = engine_of(self._rows)

    def series(self, quantity: str) -> Series:
        """Return times and values of a counter or gauge, summed over its labels; empty where the server has none."""
        return self._named(self.engine.full(quantity))

    def labelled(self, quantity: str, label: str) -> dict[str, Series]:
        """Return the series of each value of a label."""
        rows = self._rows.get(self.engine.full(quantity) or "")
        if rows is None:
            return {}
        kinds = {text: str(json.loads(text).get(label)) for text in rows["labels"].unique()}
        return {str(kind): _summed(own) for kind, own in rows.groupby(rows["labels"].map(kinds))}

    def rise(self, quantity: str, start_ns: int, end_ns: int) -> tuple[float, float] | None:
        """Return the rise of a counter over a window, and the largest error of its interpolation.

        None where the scrapes do not cover the window, or the counter was reset in it.
        """
        times_ns, values = self.series(quantity)
        if len(times_ns) < 2 or times_ns[0] > start_ns or times_ns[-1] < end_ns:
            return None
        if self.restarted(start_ns, end_ns):
            return None
        start, start_off = _at(times_ns, values, start_ns)
        end, end_off = _at(times_ns, values, end_ns)
        return end - start, start_off + end_off

    def block_means(self, quantity: str, edges_ns: Integers) -> list[float] | None:
        """Return the mean of a gauge's samples in each block; None where a block has no sample."""
        times_ns, values = self.series(quantity)
        means = []
        for start_ns, end_ns in pairwise(edges_ns.tolist()):
            inside = values[(times_ns >= start_ns) & (times_ns < end_ns)]
            if not len(inside):
                return None
            means.append(float(inside.mean()))
        return means

    def restarted(self, start_ns: int, end_ns: int) -> bool:
        """Return whether a counter fell, or was created anew, between the scrapes around a window."""
        for quantity in ("generated", "prompt", "finished"):
            times_ns, values = self.series(quantity)
            first = max(int(np.searchsorted(times_ns, start_ns, side="right")) - 1, 0)
            last = int(np.searchsorted(times_ns, end_ns, side="left")) + 1
            if (np.diff(values[first:last]) < 0).any():
                return True
        created = self.engine.prefix + self.engine.generated.removesuffix("_total") + "_created"
        times_ns, _ = self._named(created)
        return bool(((times_ns[1:] > start_ns) & (times_ns[1:] <= end_ns)).any())

    def histogram(self, quantity: str, start_ns: int, end_ns: int) -> Histogram | None:
        """Return the rise of a histogram from the first to the last scrape in a window; None where there is none."""
        name = self.engine.full(quantity)
        counted, summed = self._named(f"{name}_count"), self._named(f"{name}_sum")
        inside = counted[0][(counted[0] >= start_ns) & (counted[0] <= end_ns)]
        buckets = self._rows.get(f"{name}_bucket")
        if len(inside) < 2 or buckets is None or self.restarted(start_ns, end_ns):
            return None
        first, last = int(inside[0]), int(inside[-1])
        gained: dict[float, float] = {}
        for labels, rows in buckets.groupby("labels", sort=False):
            bound = float(json.loads(str(labels))["le"].replace("+Inf", "inf"))
            series = (rows["timestamp_ns"].to_numpy(dtype=np.int64), rows["value"].to_numpy(dtype=np.float64))
            gained[bound] = gained.get(bound, 0.0) + value_at(series, last) - value_at(series, first)
        bounds = sorted(gained)
        return Histogram(
            np.array(bounds),
            np.array([gained[bound] for bound in bounds]),
            value_at(summed, last) - value_at(summed, first),
            value_at(counted, last) - value_at(counted, first),
        )

    def _named(self, name: str | None) -> Series:
        if name is None or name not in self._rows:
            return _NONE
        if name not in self._series:
            self._series[name] = _summed(self._rows[name])
        return self._series[name]


def value_at(series: Series, time_ns: int) -> float:
    """Return the value at the last scrape at or before a time; 0 before the first, when nothing had been counted."""
    place = int(np.searchsorted(series[0], time_ns, side="right")) - 1
    return float(series[1][place]) if place >= 0 else 0.0


def _summed(rows: pd.DataFrame) -> Series:
    total = rows.groupby("timestamp_ns", sort=True)["value"].sum()
    return total.index.to_numpy(dtype=np.int64), total.to_numpy(dtype=np.float64)


def _at(times_ns: Integers, values: Values, time_ns: int) -> tuple[float, float]:
    """Return the interpolated value and its largest error: the counter may have stepped right beside a scrape."""
    after = int(np.clip(np.searchsorted(times_ns, time_ns, side="left"), 1, len(times_ns) - 1))
    span = int(times_ns[after] - times_ns[after - 1])
    share = int(time_ns - times_ns[after - 1]) / span
    rise = float(values[after] - values[after - 1])
    return float(values[after - 1]) + share * rise, max(share, 1 - share) * abs(rise) if 0 < share < 1 else 0.0


def queue_figures(histogram: Histogram | None, reasons: Iterable[Reason], notes: Iterable[Reason]) -> dict[str, Figure]:
    """Return `queue_mean_s` and `queue_p50_s` to `queue_p99_9_s`; nothing where the server has no such histogram.

    Args:
        histogram: rise of the histogram of queue times in the window.
        reasons: reasons that block latencies in this window.
        notes: notes on them.
    """
    if histogram is None:
        return {}
    reasons, notes = [*reasons], [*notes]
    mean = histogram.total / histogram.count if histogram.count else None
    if mean is None:
        reasons.append(reason("no_requests", "The server ended no request in the window."))
    figures = {"queue_mean_s": make_figure(mean, "s", boundary="server", grade="counted", reasons=reasons, notes=notes)}
    for percentile in PERCENTILES:
        figures[figure_name("queue", percentile)] = _percentile(histogram, percentile, reasons, notes)
    return figures


def interpolated(histogram: Histogram, share: float) -> tuple[float | None, float, float]:
    """Return the value below which a share of the values lies, and the bounds of its bucket.

    None instead of the value in a bucket that begins at 0 or has no end. The histogram must not be empty.
    """
    rank = share * histogram.cumulated[-1]
    place = int(np.searchsorted(histogram.cumulated, rank, side="left"))
    low = float(histogram.bounds[place - 1]) if place else 0.0
    high = float(histogram.bounds[place])
    if not place or not np.isfinite(high):
        return None, low, high
    before = float(histogram.cumulated[place - 1])
    inside = float(histogram.cumulated[place]) - before
    return low + (high - low) * (rank - before) / inside, low, high


def _percentile(histogram: Histogram, percentile: float, reasons: list[Reason], notes: list[Reason]) -> Figure:
    value, bounds = None, None
    if histogram.count and histogram.cumulated[-1] > 0:
        value, low, high = interpolated(histogram, percentile / 100)
        bounds = (low, high)
        if value is None:
            where = f"above {low:g} s" if not np.isfinite(high) else f"at most {high:g} s"
            reasons = [*reasons, reason("wide_bucket", f"It is {where}: the server's histogram has no finer bucket.")]
        else:
            notes = [*notes, reason("interpolated", "Interpolated within a bucket of the server's histogram.")]
    elif histogram.count:
        reasons = [*reasons, reason("wide_bucket", "The server's histogram has no buckets.")]
    figure = make_figure(value, "s", boundary="server", grade="counted", reasons=reasons, notes=notes)
    return structs.replace(figure, interval_95=bounds) if figure.valid else figure
