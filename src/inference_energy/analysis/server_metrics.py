"""The server's own counters and gauges (server_metrics.parquet), by quantity, for every engine.

Series of ranks, replicas and other models are reduced first, see `ServerMetrics`.

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
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd
from msgspec import structs
from numpy.typing import NDArray

from inference_energy.analysis.figures import make_figure
from inference_energy.analysis.latency import PERCENTILES, figure_name
from inference_energy.contracts.engine_metrics import (
    ENGINES,
    GAUGES,
    MODEL,
    SHARES,
    Engine,
    engine_of,
    group_series,
)
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.reason_codes import reason
from inference_energy.contracts.server_metrics import ON_CHANGE

Integers = NDArray[np.int64]
Values = NDArray[np.float64]
Series = tuple[Integers, Values]

_NONE: Series = (np.zeros(0, dtype=np.int64), np.zeros(0))

LARGEST = 2.0**53
"""Above it a float64 cannot count one by one."""

ROUNDING = 1e-6
"""A share may be above 1 by this."""

MAX_COPIES_APART = 0.1
"""Largest difference between ranks that work on the same requests, as a share of the larger.

Ranks write their numbers one after the other, so a scrape may see one a step later than the next.
"""


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


@dataclass(frozen=True)
class _Samples:
    """All samples of one name.

    Attributes:
        times_ns: times of its scrapes, ascending.
        labels: labels of each series.
        values: one row a scrape, one column a series; NaN where the page did not have it, or not as such a number.
        repeated: whether a page had one series twice.
        refused: whether a value was no number that there can be.
    """

    times_ns: Integers
    labels: list[dict[str, str]]
    values: Values
    repeated: bool
    refused: bool


@dataclass(frozen=True)
class _Reduced:
    """One number at each scrape.

    Attributes:
        series: times and values, only where they are known.
        columns: the series that it is made of, as positions.
        others: series of other models.
        problem: why there is none; empty where there is.
    """

    series: Series = _NONE
    columns: tuple[int, ...] = ()
    others: tuple[int, ...] = ()
    problem: str = ""


class ServerMetrics:
    """The metrics of a session.

    The series of one quantity are reduced as their labels demand (`contracts.engine_metrics.group_series`): ranks that
    work on the same requests show the same number, of which one is taken; replicas add up, or have their mean taken if
    the quantity is a share; of several models, only the measured one counts. What cannot be reduced is not given:
    `unclear` says why.

    Args:
        rows: rows of server_metrics.parquet.
        model: the model that is measured.

    Attributes:
        engine: the serving engine, with the names of its metrics.
    """

    def __init__(self, rows: pd.DataFrame, model: str | None = None) -> None:
        self._model = model
        self._rows = {str(name): own for name, own in rows.groupby("name", sort=False)}
        self._times_ns = np.unique(rows["timestamp_ns"].to_numpy(dtype=np.int64))
        self._samples: dict[str, _Samples] = {}
        self._reduced: dict[str, _Reduced] = {}
        self.engine: Engine = engine_of(self._with_model() or self._rows)
        self._gauges = {self.engine.full(quantity) for quantity in GAUGES}

    def series(self, quantity: str) -> Series:
        """Return times and values of a counter or gauge, one number a scrape; empty where the server has none."""
        return self._quantity(quantity).series

    def unclear(self, quantity: str) -> str | None:
        """Return why a quantity that the server reports is not given, a sentence; None where it is."""
        name, problem = self.engine.full(quantity), self._quantity(quantity).problem
        return f"The server's series {name} make no number: {problem}." if problem else None

    def labelled(self, quantity: str, label: str) -> dict[str, Series]:
        """Return the series of each value of a label; empty where they make no number."""
        name = self.engine.full(quantity)
        if name is None or name not in self._rows or self._quantity(quantity).problem:
            return {}
        samples, columns = self._read(name), set(self._quantity(quantity).columns)
        found: dict[str, Series] = {}
        for kind in dict.fromkeys(entry.get(label) for entry in samples.labels):
            chosen = [place for place, entry in enumerate(samples.labels) if entry.get(label) == kind]
            if chosen := [place for place in chosen if place in columns]:
                found[str(kind)] = self._reduce(name, samples, chosen).series
        return found

    def rise(self, quantity: str, start_ns: int, end_ns: int) -> tuple[float, float] | None:
        """Return the rise of a counter over a window, and the largest error of its interpolation.

        None where the scrapes do not cover the window, the counter was reset in it, or its series make no number.
        """
        times_ns, values = self.series(quantity)
        if len(times_ns) < 2 or times_ns[0] > start_ns or times_ns[-1] < end_ns:
            return None
        if self.restarted(start_ns, end_ns):
            return None
        start, start_off = _at(times_ns, values, start_ns)
        end, end_off = _at(times_ns, values, end_ns)
        return end - start, start_off + end_off

    def rise_of_others(self, quantity: str, start_ns: int, end_ns: int) -> float:
        """Return the rise of the series of other models, between the last scrapes before two times.

        0 where there are none; falls, which are restarts, are left out.
        """
        name = self.engine.full(quantity)
        others = self._quantity(quantity).others
        if name is None or not others:
            return 0.0
        samples = self._read(name)
        inside = slice(*(int(np.searchsorted(samples.times_ns, at, side="right")) for at in (start_ns, end_ns)))
        values = samples.values[max(inside.start - 1, 0) : inside.stop, list(others)]
        return float(np.nansum(np.clip(np.diff(values, axis=0), 0, None)))

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
            name = self.engine.full(quantity)
            if name is None or name not in self._rows:
                continue
            samples = self._read(name)
            first = max(int(np.searchsorted(samples.times_ns, start_ns, side="right")) - 1, 0)
            last = int(np.searchsorted(samples.times_ns, end_ns, side="left")) + 1
            for column in self._quantity(quantity).columns:
                known = samples.values[first:last, column]
                if (np.diff(known[~np.isnan(known)]) < 0).any():
                    return True
        created = self._rows.get(self.engine.prefix + self.engine.generated.removesuffix("_total") + "_created")
        if created is None:
            return False
        changes = created[created.groupby("labels")["value"].diff().fillna(0.0) != 0]["timestamp_ns"]
        return bool(((changes > start_ns) & (changes <= end_ns)).any())

    def histogram(self, quantity: str, start_ns: int, end_ns: int) -> Histogram | None:
        """Return the rise of a histogram from the first to the last scrape in a window; None where there is none."""
        name = self.engine.full(quantity)
        if name is None or f"{name}_bucket" not in self._rows or self.histogram_problem(quantity, start_ns, end_ns):
            return None
        counted, summed = self._named(f"{name}_count").series, self._named(f"{name}_sum").series
        inside = counted[0][(counted[0] >= start_ns) & (counted[0] <= end_ns)]
        if len(inside) < 2:
            return None
        first, last = int(inside[0]), int(inside[-1])
        gained = {
            bound: value_at(series, last) - value_at(series, first) for bound, series in self._buckets(name).items()
        }
        bounds = sorted(gained)
        return Histogram(
            np.array(bounds),
            np.array([gained[bound] for bound in bounds]),
            value_at(summed, last) - value_at(summed, first),
            value_at(counted, last) - value_at(counted, first),
        )

    def histogram_problem(self, quantity: str, start_ns: int, end_ns: int) -> Reason | None:
        """Return why a histogram that the server reports is not given for a window; None where it is, or has none."""
        name = self.engine.full(quantity)
        parts = [f"{name}_{part}" for part in ("count", "sum", "bucket") if f"{name}_{part}" in self._rows]
        for part in parts:
            if problem := self._named(part).problem:
                return reason("metrics_unclear", f"The server's series {part} make no number: {problem}.")
        if parts and self.restarted(start_ns, end_ns):
            return reason("server_restarted", "The server's counters began anew in the window: it was restarted.")
        for part in parts:
            samples = self._read(part)
            if samples.refused:
                return reason("metrics_unclear", f"The server's series {part} have values that no histogram has.")
            inside = (samples.times_ns >= start_ns) & (samples.times_ns <= end_ns)
            if not part.endswith("_sum") and (np.diff(samples.values[inside], axis=0) < 0).any():
                return reason("metrics_unclear", f"The server's counter {part} fell in the window.")
        return None

    def _with_model(self) -> list[str]:
        """Return the names with a series of the measured model, where engines of several kinds are on one page."""
        engines = [engine for engine in ENGINES if engine.samples & self._rows.keys()]
        if self._model is None or len(engines) < 2:
            return []
        mark = json.dumps({MODEL: self._model})[1:-1]
        return [name for name, rows in self._rows.items() if any(mark in text for text in rows["labels"].unique())]

    def _quantity(self, quantity: str) -> _Reduced:
        name = self.engine.full(quantity)
        if name is None:
            return _Reduced()
        if name not in self._reduced and name in self._rows:
            samples = self._read(name)
            every = list(range(len(samples.labels)))
            self._reduced[name] = self._reduce(name, samples, every, share=quantity in SHARES)
        return self._reduced.get(name, _Reduced())

    def _named(self, name: str) -> _Reduced:
        """Return what the series of a sample of a histogram make, whatever their bucket."""
        if name not in self._reduced and name in self._rows:
            if name.endswith("_bucket"):
                found = list(self._bucket_series(name).values())
                problem = next((reduced.problem for reduced in found if reduced.problem), "")
                self._reduced[name] = _Reduced(problem=problem)
            else:
                samples = self._read(name)
                self._reduced[name] = self._reduce(name, samples, list(range(len(samples.labels))))
        return self._reduced.get(name, _Reduced())

    def _buckets(self, histogram: str) -> dict[float, Series]:
        """Return the series of each bucket, by its upper bound."""
        return {bound: reduced.series for bound, reduced in self._bucket_series(f"{histogram}_bucket").items()}

    def _bucket_series(self, name: str) -> dict[float, _Reduced]:
        samples = self._read(name)
        bare = [{key: value for key, value in entry.items() if key != "le"} for entry in samples.labels]
        alike: dict[str, list[int]] = {}
        for place, entry in enumerate(bare):
            alike.setdefault(json.dumps(entry, sort_keys=True), []).append(place)
        first = [places[0] for places in alike.values()]
        grouping = group_series([bare[place] for place in first], self._model)
        if grouping.problem:
            return {np.inf: _Reduced(problem=grouping.problem)}
        chosen = {first[place] for group in grouping.groups for place in group}
        places = [place for own in alike.values() if own[0] in chosen for place in own]
        bounds = {place: _bound(samples.labels[place].get("le")) for place in places}
        if any(np.isnan(bound) for bound in bounds.values()):
            return {np.inf: _Reduced(problem="a bucket has no upper bound")}
        without = replace(samples, labels=bare)
        return {
            bound: self._reduce(name, without, [place for place in places if bounds[place] == bound])
            for bound in dict.fromkeys(bounds.values())
        }

    def _read(self, name: str) -> _Samples:
        """Return the samples of a name that is there.

        A counter that comes up later had counted nothing before, for servers make a series when they first count.
        """
        if name not in self._samples:
            rows = self._rows[name]
            own_ns = rows["timestamp_ns"].to_numpy(dtype=np.int64)
            codes, texts = pd.factorize(rows["labels"])
            changes_only = name.endswith(ON_CHANGE)
            before_ns = self._times_ns[self._times_ns < own_ns.min()]
            times_ns = np.unique(own_ns if name in self._gauges else np.concatenate([before_ns, own_ns]))
            if changes_only:
                times_ns = self._times_ns
            values = np.full((len(times_ns), len(texts)), np.nan)
            raw = rows["value"].to_numpy(dtype=np.float64)
            largest = 1.0 + ROUNDING if name == self.engine.full("kv_use") else LARGEST
            possible = np.isfinite(raw) if name.endswith("_sum") else (raw >= 0) & (raw <= largest)
            places = np.searchsorted(times_ns, own_ns)
            values[places, codes] = np.where(possible, raw, np.nan)
            repeated = len(rows) != len(rows[["timestamp_ns", "labels"]].drop_duplicates())
            for column in range(len(texts)):
                own = places[codes == column]
                values[: own.min(), column] = 0.0
                if changes_only:
                    values[:, column] = pd.Series(values[:, column]).ffill().to_numpy()
            labels = [{str(key): str(value) for key, value in json.loads(text).items()} for text in texts]
            self._samples[name] = _Samples(times_ns, labels, values, repeated, refused=not possible.all())
        return self._samples[name]

    def _reduce(self, name: str, samples: _Samples, chosen: list[int], *, share: bool = False) -> _Reduced:
        """Reduce some of the series of a name to one number a scrape."""
        if samples.repeated:
            return _Reduced(problem="a page has one of them twice, with the same labels")
        grouping = group_series([samples.labels[place] for place in chosen], self._model)
        others = tuple(chosen[place] for place in grouping.others)
        if grouping.problem:
            return _Reduced(others=others, problem=grouping.problem)
        groups = [[chosen[place] for place in group] for group in grouping.groups]
        for group in groups:
            if _differ(samples.values[:, group], gauge=name in self._gauges):
                return _Reduced(others=others, problem="ranks that should work on the same requests differ")
        each = np.stack([np.fmax.reduce(samples.values[:, group], axis=1) for group in groups], axis=1)
        numbers = each.mean(axis=1) if share else each.sum(axis=1)
        known = ~np.isnan(numbers)
        columns = tuple(place for group in groups for place in group)
        if not known.any() and samples.refused:
            return _Reduced(others=others, problem="their values are not numbers that there can be")
        return _Reduced((samples.times_ns[known], numbers[known]), columns, others)


def _differ(copies: Values, *, gauge: bool) -> bool:
    """Return whether series that should show the same number do not: their means, or rises, are too far apart.

    Ranks that show nothing at all are left out: not every engine lets all of its ranks report.
    """
    if copies.shape[1] < 2:
        return False
    amounts = []
    for column in range(copies.shape[1]):
        known = copies[:, column][~np.isnan(copies[:, column])]
        amounts.append((known.mean() if gauge else known[-1] - known[0]) if len(known) else 0.0)
    busy = [amount for amount in amounts if amount]
    return bool(busy) and max(busy) - min(busy) > MAX_COPIES_APART * max(map(abs, busy))


def _bound(text: str | None) -> float:
    """Return the upper bound of a bucket; NaN if it is none."""
    try:
        return float((text or "nan").replace("+Inf", "inf"))
    except ValueError:
        return float("nan")


def value_at(series: Series, time_ns: int) -> float:
    """Return the value at the last scrape at or before a time; 0 before the first, when nothing had been counted."""
    place = int(np.searchsorted(series[0], time_ns, side="right")) - 1
    return float(series[1][place]) if place >= 0 else 0.0


def _at(times_ns: Integers, values: Values, time_ns: int) -> tuple[float, float]:
    """Return the interpolated value and its largest error: the counter may have stepped right beside a scrape."""
    after = int(np.clip(np.searchsorted(times_ns, time_ns, side="left"), 1, len(times_ns) - 1))
    span = int(times_ns[after] - times_ns[after - 1])
    share = int(time_ns - times_ns[after - 1]) / span
    rise = float(values[after] - values[after - 1])
    return float(values[after - 1]) + share * rise, max(share, 1 - share) * abs(rise) if 0 < share < 1 else 0.0


def queue_times(
    metrics: ServerMetrics, start_ns: int, end_ns: int, reasons: Iterable[Reason], notes: Iterable[Reason]
) -> dict[str, Figure]:
    """Return the figures of `queue_figures` for a window; without values where the histogram cannot be trusted."""
    problem = metrics.histogram_problem("queue_time", start_ns, end_ns)
    if problem is None:
        return queue_figures(metrics.histogram("queue_time", start_ns, end_ns), reasons, notes)
    names = ["queue_mean_s", *(figure_name("queue", percentile) for percentile in PERCENTILES)]
    missing = make_figure(None, "s", boundary="server", grade="counted", reasons=[*reasons, problem], notes=[*notes])
    return dict.fromkeys(names, missing)


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
