"""Least squares on a window's energy: E = X c, without an intercept.

Weighting `relative` minimises the sum of squared *relative* residuals, ((E - X c) / E)^2, that is weights 1 / E^2:
windows differ ten-fold in energy and their sensors err by a share of it. `plain` minimises the squared residuals in
joules. On the five H100 windows in the tests, `relative` gives the published 449 W, 5.8 mJ and 14 mJ; `plain` does not.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

Weighting = Literal["relative", "plain"]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class LinearFit:
    """The fit: coefficients in the order of the columns, predictions in J, and R2 about the mean, unweighted."""

    coefficients: Matrix
    predicted_j: Matrix
    r2: float


def fit_linear(design: Matrix, energy_j: Matrix, weighting: Weighting) -> LinearFit:
    """Fit the coefficients.

    Args:
        design: one row a window, one column a term.
        energy_j: energy of each window, above zero.
        weighting: see above.
    """
    model = LinearRegression(fit_intercept=False)
    model.fit(design, energy_j, sample_weight=_weights(energy_j, weighting))
    predicted = np.asarray(model.predict(design), dtype=np.float64)
    return LinearFit(np.asarray(model.coef_, dtype=np.float64), predicted, float(r2_score(energy_j, predicted)))


def fit_many(designs: Matrix, energies_j: Matrix, weighting: Weighting) -> Matrix:
    """Coefficients of many fits at once, shape (fits, terms).

    Args:
        designs: shape (fits, windows, terms).
        energies_j: shape (fits, windows), above zero.
        weighting: see above.
    """
    roots = np.sqrt(_weights(energies_j, weighting))
    weighted = designs * roots[:, :, None]
    return np.asarray(
        [np.linalg.lstsq(x, y, rcond=None)[0] for x, y in zip(weighted, energies_j * roots, strict=True)],
        dtype=np.float64,
    )


def sensitivities(design: Matrix, energy_j: Matrix, weighting: Weighting) -> Matrix:
    """By how much each coefficient changes with each window's energy, shape (terms, windows).

    Args:
        design: one row a window, one column a term.
        energy_j: energy of each window, above zero; gives the weights only.
        weighting: see above.
    """
    roots = np.sqrt(_weights(energy_j, weighting))
    return np.asarray(np.linalg.pinv(design * roots[:, None]) * roots, dtype=np.float64)


def condition_number(design: Matrix, energy_j: Matrix, weighting: Weighting) -> float:
    """Condition number of the weighted design with its columns scaled to length one; infinite for a column of zeros.

    Source: Belsley, Kuh, Welsch, Regression Diagnostics (1980): above 30 the columns are too alike.
    """
    weighted = design * np.sqrt(_weights(energy_j, weighting))[:, None]
    lengths = np.linalg.norm(weighted, axis=0)
    if np.any(lengths == 0):
        return float("inf")
    return float(np.linalg.cond(weighted / lengths))


def held_out_ratios(design: Matrix, energy_j: Matrix, weighting: Weighting) -> list[float] | None:
    """Predicted / measured energy of each window by a fit to the others; None where these are fewer than the terms."""
    count, terms = design.shape
    if count - 1 < terms:
        return None
    ratios = []
    for left_out in range(count):
        kept = np.arange(count) != left_out
        fitted = fit_linear(design[kept], energy_j[kept], weighting)
        ratios.append(float(design[left_out] @ fitted.coefficients / energy_j[left_out]))
    return ratios


def _weights(energy_j: Matrix, weighting: Weighting) -> Matrix:
    return 1 / energy_j**2 if weighting == "relative" else np.ones_like(energy_j)
