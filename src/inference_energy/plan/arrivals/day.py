"""A rate like a day's: r (1 + a sin 2 pi (t/P + f)), with mean r, amplitude a, period P, phase f.

Its integral is L = r (t + a P/(2 pi) (cos 2 pi f - cos 2 pi (t/P + f))). L grows by r P in each period, so it is
inverted within one: a table brackets the time, and bisection narrows it until the arithmetic ends. Newton's method
would fail where the rate touches 0.
"""

import numpy as np
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import DayArrival
from inference_energy.plan.arrivals.rate import Rate

_TABLE = 4096
_HALVINGS = 42
"""From a 4096th of the period to 10^-16 of it."""


class DayRate(Rate):
    """A sine around a mean."""

    def __init__(self, arrival: DayArrival) -> None:
        self._day = arrival
        self._turn = 2.0 * np.pi * arrival.phase

    def expected(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Rate`."""
        day = self._day
        swing_s = day.amplitude * day.period_s / (2.0 * np.pi)
        angle = 2.0 * np.pi * time_s / day.period_s + self._turn
        return np.asarray(day.mean_qps * (time_s + swing_s * (np.cos(self._turn) - np.cos(angle))))

    def time_s(self, expected: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Rate`."""
        period_s = self._day.period_s
        periods, left = np.divmod(expected, self._day.mean_qps * period_s)
        grid_s = np.linspace(0.0, period_s, _TABLE + 1)
        place = np.clip(np.searchsorted(self.expected(grid_s), left, side="right") - 1, 0, _TABLE - 1)
        low_s = grid_s[place]
        width_s = period_s / _TABLE
        for _ in range(_HALVINGS):
            width_s /= 2.0
            low_s = np.where(self.expected(low_s + width_s) <= left, low_s + width_s, low_s)
        return np.asarray(periods * period_s + low_s)
