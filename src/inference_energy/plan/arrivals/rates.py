"""Rates over time, and the time rescaling that makes a process of any rate from one of rate 1.

With the expected count up to a time, L(t) = integral of the rate from 0 to t, an arrival of the unit process at s is
sent at t = L^-1(s). For Poisson this is exact: the times L(t) of an inhomogeneous Poisson process are a Poisson process
of rate 1 (time-rescaling theorem: Papangelou 1972; Brown, Barbieri, Ventura, Kass, Frank, Neural Computation 14, 2002;
as a method of drawing: Cinlar, Introduction to Stochastic Processes, 1975). No draw is thrown away, as in the
thinning of Lewis and Shedler (1979), so one seed gives comparable arrivals under neighbouring rates. A gamma process
so rescaled is a modulated renewal process.

- Ramp: linear from a to b over the duration T, L = a t + (b - a) t^2 / (2 T).
- Day: r (1 + a sin 2 pi (t/P + f)), with mean r, amplitude a, period P, phase f. Its integral is
  L = r (t + a P/(2 pi) (cos 2 pi f - cos 2 pi (t/P + f))). L grows by r P in each period, so it is inverted within one:
  a table brackets the time, and bisection narrows it to the limit of floating point. Newton's method would fail where
  the rate touches 0.
- Piecewise: stretches of constant rate, repeated; L is linear within each.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import DayArrival, PiecewiseArrival, RampArrival


class ArrivalRate(ABC):
    """A rate over time."""

    @abstractmethod
    def expected(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return L, the expected number of arrivals from 0 to each time."""

    @abstractmethod
    def time_s(self, expected: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the time at which the expected number of arrivals is reached [s]: the inverse of L."""


class SteadyRate(ArrivalRate):
    """The same rate at all times [1/s]: L = r t."""

    def __init__(self, rate_qps: float) -> None:
        self._rate_qps = rate_qps

    def expected(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `ArrivalRate`."""
        return time_s * self._rate_qps

    def time_s(self, expected: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `ArrivalRate`."""
        return expected / self._rate_qps


class RampRate(ArrivalRate):
    """A linear ramp over a duration."""

    def __init__(self, arrival: RampArrival, duration_s: float) -> None:
        self._from_qps = arrival.from_qps
        self._slope = (arrival.to_qps - arrival.from_qps) / duration_s

    def expected(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `ArrivalRate`."""
        return self._from_qps * time_s + 0.5 * self._slope * time_s**2

    def time_s(self, expected: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `ArrivalRate`; the root in its form without cancellation, which holds for a slope of 0 too."""
        root = np.sqrt(np.maximum(0.0, self._from_qps**2 + 2.0 * self._slope * expected))
        denominator = self._from_qps + root
        return np.divide(2.0 * expected, denominator, out=np.zeros_like(expected), where=denominator > 0)


_TABLE = 4096
_HALVINGS = 42
"""Halvings from a 4096th of the period to 10^-16 of it."""


class DayRate(ArrivalRate):
    """A sine around a mean."""

    def __init__(self, arrival: DayArrival) -> None:
        self._day = arrival
        self._phase = 2.0 * np.pi * arrival.phase

    def expected(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `ArrivalRate`."""
        day = self._day
        swing_s = day.amplitude * day.period_s / (2.0 * np.pi)
        angle = 2.0 * np.pi * time_s / day.period_s + self._phase
        return np.asarray(day.mean_qps * (time_s + swing_s * (np.cos(self._phase) - np.cos(angle))))

    def time_s(self, expected: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `ArrivalRate`."""
        period_s = self._day.period_s
        periods, remainder = np.divmod(expected, self._day.mean_qps * period_s)
        grid_s = np.linspace(0.0, period_s, _TABLE + 1)
        bracket = np.clip(np.searchsorted(self.expected(grid_s), remainder, side="right") - 1, 0, _TABLE - 1)
        low_s = grid_s[bracket]
        width_s = period_s / _TABLE
        for _ in range(_HALVINGS):
            width_s /= 2.0
            low_s = np.where(self.expected(low_s + width_s) <= remainder, low_s + width_s, low_s)
        return np.asarray(periods * period_s + low_s)


class PiecewiseRate(ArrivalRate):
    """Steps of constant rate, repeated from the first after the last."""

    def __init__(self, arrival: PiecewiseArrival) -> None:
        self._rates_qps = np.array([step.rate_qps for step in arrival.steps])
        lengths_s = np.array([step.duration_s for step in arrival.steps])
        self._starts_s = np.concatenate(([0.0], np.cumsum(lengths_s)))
        self._before = np.concatenate(([0.0], np.cumsum(lengths_s * self._rates_qps)))

    def expected(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `ArrivalRate`."""
        rounds, within_s = np.divmod(time_s, self._starts_s[-1])
        return np.asarray(rounds * self._before[-1] + np.interp(within_s, self._starts_s, self._before))

    def time_s(self, expected: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `ArrivalRate`; if a pause makes L flat, the time after the pause."""
        rounds, remainder = np.divmod(expected, self._before[-1])
        step = np.searchsorted(self._before, remainder, side="right") - 1
        within_s = self._starts_s[step] + (remainder - self._before[step]) / self._rates_qps[step]
        return np.asarray(rounds * self._starts_s[-1] + within_s)
