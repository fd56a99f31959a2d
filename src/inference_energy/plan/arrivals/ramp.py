"""A rate that changes linearly from a to b over the duration T: L = a t + (b - a) t^2 / (2 T)."""

import numpy as np
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import RampArrival
from inference_energy.plan.arrivals.rate import Rate


class RampRate(Rate):
    """A linear ramp over a duration."""

    def __init__(self, arrival: RampArrival, duration_s: float) -> None:
        self._from_qps = arrival.from_qps
        self._slope = (arrival.to_qps - arrival.from_qps) / duration_s

    def expected(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Rate`."""
        return self._from_qps * time_s + 0.5 * self._slope * time_s**2

    def time_s(self, expected: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Rate`; the root in the form that does not cancel, which holds for a slope of 0 too."""
        root = np.sqrt(np.maximum(0.0, self._from_qps**2 + 2.0 * self._slope * expected))
        below = self._from_qps + root
        return np.divide(2.0 * expected, below, out=np.zeros_like(expected), where=below > 0)
