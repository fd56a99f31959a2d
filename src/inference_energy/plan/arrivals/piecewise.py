"""Stretches of constant rate, repeated: L is linear within each."""

import numpy as np
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import PiecewiseArrival
from inference_energy.plan.arrivals.rate import Rate


class PiecewiseRate(Rate):
    """Steps one after another, and again from the first."""

    def __init__(self, arrival: PiecewiseArrival) -> None:
        self._rates_qps = np.array([step.rate_qps for step in arrival.steps])
        lengths_s = np.array([step.duration_s for step in arrival.steps])
        self._starts_s = np.concatenate(([0.0], np.cumsum(lengths_s)))
        self._before = np.concatenate(([0.0], np.cumsum(lengths_s * self._rates_qps)))

    def expected(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Rate`."""
        rounds, within_s = np.divmod(time_s, self._starts_s[-1])
        return np.asarray(rounds * self._before[-1] + np.interp(within_s, self._starts_s, self._before))

    def time_s(self, expected: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Rate`; where a pause makes L flat, the time after it."""
        rounds, left = np.divmod(expected, self._before[-1])
        step = np.searchsorted(self._before, left, side="right") - 1
        within_s = self._starts_s[step] + (left - self._before[step]) / self._rates_qps[step]
        return np.asarray(rounds * self._starts_s[-1] + within_s)
