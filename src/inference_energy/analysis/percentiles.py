"""Percentiles of a window's requests with their 95 % intervals.

    percentile p    linear between order statistics (Hyndman and Fan's type 7)
    interval        from order statistic l to u, the binomial quantiles of n' trials with probability p, whatever the
                    distribution (Hahn, Meeker, Statistical Intervals, 1991, ch. 5)
    n'              n / deff, times (z / t)^2 for the degrees of freedom of deff (Korn, Graubard, Survey Methodology
                    24, 1998); deff is the variance of the share of values up to the percentile, by block bootstrap
                    over time (`uncertainty.bootstrap`), over that of independent values (Woodruff, JASA 47, 1952)

Requests near in time queue behind each other, so n of them say less than n independent ones: that is what deff is for.
Where so few lie beyond a percentile that there is no u, nothing bounds it from above, and it is not given. Independent
values need 6, 36, 72, 368 and 3,688 for p50, p90, p95, p99 and p99.9.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from inference_energy.analysis.uncertainty.bootstrap import ratio_error

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
