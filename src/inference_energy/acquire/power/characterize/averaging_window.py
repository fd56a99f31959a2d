"""Fit the averaging window of a reading to its response to a load that is switched at known times.

    reading(t) = rest + drift t + (step + growth t) * L(t),    L(t) = share of load in [t - d - w, t - d]

a boxcar of width w that shows its result with a delay d. The other four parameters are linear; drift and growth account
for the warming of the card. The sum of squares has many minima, so it is first evaluated on a grid of w and d, then
minimized by scipy.optimize.least_squares from the best grid points. The standard errors come from a jackknife over
consecutive stretches of time (Efron, Tibshirani, "An introduction to the bootstrap", 1993, chapter 11), since
neighbouring residuals are not independent. Source of the method: Yang, Adamek, Armour, "Part-time power measurements",
SC 2024, who fit a boxcar to square waves likewise.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import t as student

from inference_energy.acquire.power.characterize.sensor_timing import Floats
from inference_energy.acquire.power.characterize.square_wave import Wave

SHORTEST_S, LONGEST_S = 0.002, 4.0
EARLIEST_S, LATEST_S = -0.05, 0.6
GROUPS = 10
FEWEST_READINGS = 40
FEWEST_BETWEEN = 4
MOST_MISFIT = 0.15
LEAST_STEP_MISFITS = 5.0
_STARTS = 4


@dataclass(frozen=True)
class WindowFit:
    """A fitted boxcar.

    Attributes:
        window_s, delay_s: w and d; `u_window_s`, `u_delay_s`: their standard errors.
        linear: rest (W), drift (W/s), step (W), growth (W/s).
        misfit_w: root mean square of the residuals.
        between: number of readings between rest and full load, which alone determine w.
        readings: number of readings that were fitted.
    """

    window_s: float
    delay_s: float
    u_window_s: float
    u_delay_s: float
    linear: tuple[float, float, float, float]
    misfit_w: float
    between: int
    readings: int

    @property
    def step_w(self) -> float:
        """Return the power that the load adds [W]."""
        return self.linear[2]

    @property
    def coverage_factor(self) -> float:
        """Return the coverage factor of a 95 % interval."""
        return float(student.ppf(0.975, GROUPS - 1))

    def model_w(self, times_s: Floats, wave: Wave) -> Floats:
        """Return the fitted reading at each time."""
        share = wave.share(times_s, self.window_s, self.delay_s)
        return np.asarray(_columns(times_s, share) @ np.array(self.linear), dtype=np.float64)

    def why_no_response(self) -> str | None:
        """Return why nothing of the fit can be trusted; None if it can."""
        if self.step_w < LEAST_STEP_MISFITS * self.misfit_w:
            return "the load makes no clear step in this reading"
        if self.misfit_w > MOST_MISFIT * self.step_w:
            return f"the response is no boxcar's: residuals are {self.misfit_w / self.step_w:.0%} of the step"
        return None

    def why_no_window(self) -> str | None:
        """Return why window and delay cannot be trusted; None if they can."""
        if (why := self.why_no_response()) is not None:
            return why
        if self.between < FEWEST_BETWEEN:
            return f"not resolvable: only {self.between} of {self.readings} readings fell between rest and full load"
        if not 1.01 * SHORTEST_S < self.window_s < 0.99 * LONGEST_S:
            return f"not resolvable: the best width lies at the edge of what was tried ({SHORTEST_S} to {LONGEST_S} s)"
        if self.coverage_factor * self.u_window_s > self.window_s / 2:
            return "not resolvable: its 95 % interval is wider than itself"
        return None


def fit_window(times_s: Floats, power_w: Floats, wave: Wave) -> WindowFit | None:
    """Fit the boxcar to readings.

    Args:
        times_s: time of each reading, from an origin near the first, shape (n,).
        power_w: the readings, shape (n,).
        wave: the load, from the same origin.

    Returns:
        The fit, or None with fewer than `FEWEST_READINGS` readings or no edge.
    """
    if len(times_s) < FEWEST_READINGS or len(wave.edge_s) < 2:
        return None
    best = min(
        (_refined(times_s, power_w, wave, start) for start in _starting_points(times_s, power_w, wave)), key=_cost
    )
    linear = tuple(float(number) for number in best.x[2:])
    assert len(linear) == 4
    residuals = best.fun
    share = wave.share(times_s, best.x[0], best.x[1])
    level = (power_w - _columns(times_s, np.zeros_like(share)) @ best.x[2:]) / max(abs(linear[2]), 1e-9)
    fit = WindowFit(
        window_s=float(best.x[0]),
        delay_s=float(best.x[1]),
        u_window_s=0.0,
        u_delay_s=0.0,
        linear=linear,
        misfit_w=float(np.sqrt(np.mean(residuals**2))),
        between=int(np.sum((level > 0.1) & (level < 0.9) & (share > 0.02) & (share < 0.98))),
        readings=len(times_s),
    )
    left_out = np.array(
        [
            _refined(times_s[kept], power_w[kept], wave, best.x).x[:2]
            for group in np.array_split(np.arange(len(times_s)), GROUPS)
            for kept in [np.setdiff1d(np.arange(len(times_s)), group)]
        ]
    )
    spread = np.sqrt((GROUPS - 1) / GROUPS * np.sum((left_out - left_out.mean(axis=0)) ** 2, axis=0))
    return replace(fit, u_window_s=float(spread[0]), u_delay_s=float(spread[1]))


def _columns(times_s: Floats, share: Floats) -> Floats:
    return np.column_stack((np.ones_like(times_s), times_s, share, times_s * share))


def _starting_points(times_s: Floats, power_w: Floats, wave: Wave) -> list[Floats]:
    """Return the best points of the grid, with their linear parameters."""
    grid = []
    for window_s in np.geomspace(2 * SHORTEST_S, 0.95 * LONGEST_S, 40):
        for delay_s in np.linspace(EARLIEST_S / 2, 0.4, 40):
            columns = _columns(times_s, wave.share(times_s, window_s, delay_s))
            linear, *_ = np.linalg.lstsq(columns, power_w, rcond=None)
            grid.append((float(np.sum((power_w - columns @ linear) ** 2)), window_s, delay_s, linear))
    grid.sort(key=lambda point: point[0])
    return [np.array([window_s, delay_s, *linear]) for _, window_s, delay_s, linear in grid[:_STARTS]]


def _refined(times_s: Floats, power_w: Floats, wave: Wave, start: Floats) -> "_Result":
    """Return the minimum near a starting point."""

    def residuals(x: Floats) -> Floats:
        return _columns(times_s, wave.share(times_s, x[0], x[1])) @ x[2:] - power_w

    def slopes(x: Floats) -> Floats:
        share = wave.share(times_s, x[0], x[1])
        step_w = x[4] + x[5] * times_s
        newest, oldest = wave.works(times_s - x[1]), wave.works(times_s - x[1] - x[0])
        by_window = step_w * (oldest - share) / x[0]
        by_delay = step_w * (oldest - newest) / x[0]
        return np.column_stack((by_window, by_delay, _columns(times_s, share)))

    free = np.full(4, np.inf)
    low, high = np.array([SHORTEST_S, EARLIEST_S, *-free]), np.array([LONGEST_S, LATEST_S, *free])
    solved = least_squares(residuals, np.clip(start, low, high), jac=slopes, bounds=(low, high), x_scale="jac")
    return _Result(np.asarray(solved.x, dtype=np.float64), np.asarray(solved.fun, dtype=np.float64))


@dataclass(frozen=True)
class _Result:
    x: Floats
    fun: Floats


def _cost(result: _Result) -> float:
    return float(np.sum(result.fun**2))
