"""Rates over time, and the time rescaling that makes a process of any rate from one of rate 1.

With the expected count up to a time, L(t) = integral of the rate from 0 to t, an arrival of the unit process at s is
sent at t = L^-1(s). For Poisson this is exact: the times L(t) of an inhomogeneous Poisson process are a Poisson process
of rate 1 (time-rescaling theorem: Papangelou 1972; Brown, Barbieri, Ventura, Kass, Frank, Neural Computation 14, 2002;
as a method of drawing: Cinlar, Introduction to Stochastic Processes, 1975). No draw is thrown away, as in the
thinning of Lewis and Shedler (1979), so one seed gives comparable arrivals under neighbouring rates. A gamma process
so rescaled is a modulated renewal process.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray


class Rate(ABC):
    """A rate over time."""

    @abstractmethod
    def expected(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """L: the expected number of arrivals from 0 to each time."""

    @abstractmethod
    def time_s(self, expected: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse of L: when so many arrivals are expected [s]; for values that L reaches."""


class SteadyRate(Rate):
    """The same rate at all times [1/s]: L = r t."""

    def __init__(self, rate_qps: float) -> None:
        self._rate_qps = rate_qps

    def expected(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Rate`."""
        return time_s * self._rate_qps

    def time_s(self, expected: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Rate`."""
        return expected / self._rate_qps
