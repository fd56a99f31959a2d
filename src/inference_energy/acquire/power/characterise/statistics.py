"""Means with their uncertainty: of readings at idle, and of an integral over the counter's energy."""

from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from inference_energy.acquire.power.characterise.polls import Floats

FEWEST_BLOCKS = 5
FEWEST_RATIOS = 3


class Mean(NamedTuple):
    """A mean, and its 95 % interval where there are enough independent parts."""

    value: float
    interval_95: tuple[float, float] | None
    parts: int


def block_mean(times_s: Floats, values: Floats, block_s: float) -> Mean:
    """Mean of the readings.

    The interval is Student's over the means of blocks of `block_s`, which are taken to be independent; there is none
    with fewer than `FEWEST_BLOCKS` blocks.
    """
    value = float(values.mean())
    blocks = int((times_s[-1] - times_s[0]) / block_s)
    if blocks < FEWEST_BLOCKS:
        return Mean(value, None, blocks)
    place = np.minimum(((times_s - times_s[0]) / block_s).astype(np.int64), blocks - 1)
    counts = np.bincount(place, minlength=blocks)
    means = np.bincount(place, weights=values, minlength=blocks)[counts > 0] / counts[counts > 0]
    return _interval(value, float(means.std(ddof=1) / np.sqrt(len(means))), len(means))


def integral_over_counter(
    power_s: Floats, power_w: Floats, counter_s: Floats, counter_j: Floats, cuts_s: Floats
) -> Mean | None:
    """Energy by the trapezoid over that of the counter.

    Args:
        power_s: the middle of what each reading is the mean of, shape (n,).
        power_w: the readings, shape (n,).
        counter_s: the counter's edges, shape (m,).
        counter_j: what it showed from each on, shape (m,).
        cuts_s: about where to cut; each is moved to the counter's nearest edge.

    Returns:
        The ratio over all parts, with the jackknife's interval over the parts from `FEWEST_RATIOS` on; None where
        there is no whole part, or the counter did not move.
    """
    inside = (cuts_s > power_s[0]) & (cuts_s < power_s[-1])
    if len(counter_s) < 2 or inside.sum() < 2:
        return None
    edges = np.unique([int(np.argmin(np.abs(counter_s - cut_s))) for cut_s in cuts_s[inside]])
    edges = edges[(counter_s[edges] > power_s[0]) & (counter_s[edges] < power_s[-1])]
    if len(edges) < 2:
        return None
    integral_j = np.diff([_trapezoid_to(power_s, power_w, counter_s[edge]) for edge in edges])
    counted_j = np.diff(counter_j[edges])
    if counted_j.sum() <= 0:
        return None
    value, parts = float(integral_j.sum() / counted_j.sum()), len(counted_j)
    if parts < FEWEST_RATIOS:
        return Mean(value, None, parts)
    left_out = (integral_j.sum() - integral_j) / (counted_j.sum() - counted_j)
    error = float(np.sqrt((parts - 1) / parts * np.sum((left_out - left_out.mean()) ** 2)))
    return _interval(value, error, parts)


def _interval(value: float, error: float, parts: int) -> Mean:
    half = float(student.ppf(0.975, parts - 1)) * error
    return Mean(value, (value - half, value + half), parts)


def _trapezoid_to(times_s: Floats, power_w: Floats, end_s: float) -> float:
    """The integral from the first reading to `end_s`, linear between readings."""
    before = times_s < end_s
    last_w = float(np.interp(end_s, times_s, power_w))
    return float(np.trapezoid(np.append(power_w[before], last_w), np.append(times_s[before], end_s)))
