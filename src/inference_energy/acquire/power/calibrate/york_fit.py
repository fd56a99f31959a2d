"""Fit a straight line through points that are uncertain in both directions.

    meter = gain * own + offset

Source: York, Evensen, Lopez Martinez, De Basabe Delgado, "Unified equations for the slope, intercept, and standard
errors of the best straight line", American Journal of Physics 72, 367 (2004), for independent errors. If the points
scatter more than their uncertainties allow, the standard errors are widened by sqrt(chi2 / degrees of freedom) (Birge).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_energy.errors import RunError

Floats = NDArray[np.float64]

FEWEST_POINTS = 3
SMALLEST_U_W = 1e-3
LEAST_SPREAD = 10.0
_ROUNDS = 200


@dataclass(frozen=True)
class Line:
    """The line, the standard errors of its two numbers and their covariance (W).

    `chi2_per_dof` is about 1 if the uncertainties of the points explain their scatter.
    """

    gain: float
    offset_w: float
    u_gain: float
    u_offset_w: float
    covariance_w: float
    chi2_per_dof: float


def fit_line(own_w: Floats, u_own_w: Floats, meter_w: Floats, u_meter_w: Floats) -> Line:
    """Fit the line; all arguments in W, shape (n,), the `u_` ones standard uncertainties.

    Raises:
        RunError: there are fewer than `FEWEST_POINTS` points, or they are too close together to determine a gain.
    """
    if len(own_w) < FEWEST_POINTS:
        raise RunError(f"{len(own_w)} phases with both powers: {FEWEST_POINTS} are needed")
    ux, uy = np.maximum(u_own_w, SMALLEST_U_W), np.maximum(u_meter_w, SMALLEST_U_W)
    if np.ptp(own_w) < LEAST_SPREAD * np.sqrt(np.mean(ux**2 + uy**2)):
        raise RunError(
            f"the load moved the node's own power by {np.ptp(own_w):.1f} W, too little beside its noise to tell a gain"
        )
    gain = float(np.polyfit(own_w, meter_w, 1)[0])
    for _ in range(_ROUNDS):
        weight = 1.0 / (uy**2 + gain**2 * ux**2)
        x, y = own_w - np.average(own_w, weights=weight), meter_w - np.average(meter_w, weights=weight)
        along = weight * (x * uy**2 + gain * y * ux**2)
        before, gain = gain, float(np.sum(weight * along * y) / np.sum(weight * along * x))
        if abs(gain - before) < 1e-12 * abs(gain):
            break
    weight = 1.0 / (uy**2 + gain**2 * ux**2)
    mean_own_w, mean_meter_w = np.average(own_w, weights=weight), np.average(meter_w, weights=weight)
    x, y = own_w - mean_own_w, meter_w - mean_meter_w
    adjusted_w = mean_own_w + weight * (x * uy**2 + gain * y * ux**2)
    centre_w = float(np.average(adjusted_w, weights=weight))
    variance = 1.0 / float(np.sum(weight * (adjusted_w - centre_w) ** 2))
    offset_w = float(mean_meter_w - gain * mean_own_w)
    chi2 = float(np.sum(weight * (meter_w - gain * own_w - offset_w) ** 2))
    per_dof = chi2 / (len(own_w) - 2)
    wider = max(1.0, per_dof)
    return Line(
        gain=gain,
        offset_w=offset_w,
        u_gain=float(np.sqrt(wider * variance)),
        u_offset_w=float(np.sqrt(wider * (1.0 / np.sum(weight) + centre_w**2 * variance))),
        covariance_w=-wider * centre_w * variance,
        chi2_per_dof=per_dof,
    )
