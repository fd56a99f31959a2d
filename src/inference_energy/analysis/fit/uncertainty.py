"""Least-squares fits of the windows' energies, E = X c without an intercept, and the uncertainty of their coefficients.

Weighting `relative` minimises the sum of squared *relative* residuals, ((E - X c) / E)^2, that is weights 1 / E^2:
windows differ ten-fold in energy and their sensors err by a share of it. `plain` minimises the squared residuals in
joules. On the five H100 windows in the tests, `relative` gives the published 449 W, 5.8 mJ and 14 mJ; `plain` does not.

The intervals of the coefficients cover the uncertainty of the measurement *within* the model. The fluctuation of each
window is propagated by resampling its bins in blocks, all windows at once, and fitting again; the edges of the windows
by shifting their energies at random by as much. Sensors err alike in all windows: their gain scales every coefficient,
their offset is a power in a total energy, and the error of an idle power that was subtracted is that power over each
window's duration.

Two things are outside these intervals: how wrong the model itself may be, and which windows were fitted. Where no model
holds exactly, other windows have other coefficients; the error on windows left out shows that.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from inference_energy.analysis.fit.cells import Bins, FitCell
from inference_energy.analysis.uncertainty.budget import MIN_BINS, Budget, Term, block_length, merged, resamples
from inference_energy.analysis.uncertainty.terms import scale_terms
from inference_energy.config.analysis import Uncertainty

Weighting = Literal["relative", "plain"]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class LinearFit:
    """A fit: coefficients in the order of the columns, predictions in J, and R2 about the mean, unweighted."""

    coefficients: Matrix
    predicted_j: Matrix
    r2: float


def fit_linear(design: Matrix, energy_j: Matrix, weighting: Weighting) -> LinearFit:
    """Fit the coefficients.

    Args:
        design: one row a window, one column a term.
        energy_j: energy of each window, above zero.
        weighting: `relative` or `plain`, see the module.
    """
    model = LinearRegression(fit_intercept=False)
    model.fit(design, energy_j, sample_weight=_weights(energy_j, weighting))
    predicted = np.asarray(model.predict(design), dtype=np.float64)
    return LinearFit(np.asarray(model.coef_, dtype=np.float64), predicted, float(r2_score(energy_j, predicted)))


def fit_many(designs: Matrix, energies_j: Matrix, weighting: Weighting) -> Matrix:
    """Return the coefficients of many fits at once, shape (fits, terms).

    Args:
        designs: shape (fits, windows, terms).
        energies_j: shape (fits, windows), above zero.
        weighting: `relative` or `plain`, see the module.
    """
    roots = np.sqrt(_weights(energies_j, weighting))
    weighted = designs * roots[:, :, None]
    return np.asarray(
        [np.linalg.lstsq(x, y, rcond=None)[0] for x, y in zip(weighted, energies_j * roots, strict=True)],
        dtype=np.float64,
    )


def sensitivities(design: Matrix, energy_j: Matrix, weighting: Weighting) -> Matrix:
    """Return the change of each coefficient per joule of each window's energy, shape (terms, windows).

    Args:
        design: one row a window, one column a term.
        energy_j: energy of each window, above zero; gives the weights only.
        weighting: `relative` or `plain`, see the module.
    """
    roots = np.sqrt(_weights(energy_j, weighting))
    return np.asarray(np.linalg.pinv(design * roots[:, None]) * roots, dtype=np.float64)


def condition_number(design: Matrix, energy_j: Matrix, weighting: Weighting) -> float:
    """Return the condition number of the weighted design, columns scaled to length one.

    It is infinite where a column is all zeros; above 30 the columns are too alike. Source: Belsley, Kuh, Welsch,
    Regression Diagnostics (1980).
    """
    weighted = design * np.sqrt(_weights(energy_j, weighting))[:, None]
    lengths = np.linalg.norm(weighted, axis=0)
    if np.any(lengths == 0):
        return float("inf")
    return float(np.linalg.cond(weighted / lengths))


def held_out_ratios(design: Matrix, energy_j: Matrix, weighting: Weighting) -> list[float] | None:
    """Return predicted / measured energy of each window by a fit to the others; None for too few windows."""
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


REPEATS = 400
LEAST_J = 1e-9
"""Energies are kept above zero, because relative weights divide by them."""


def coefficient_terms(
    cells: list[FitCell], terms: tuple[str, ...], basis: str, weighting: Weighting
) -> list[list[Term]]:
    """Return the uncertainty terms of each coefficient, in the order of `terms`, without those of `sensor_terms`.

    Args:
        cells: the windows that were fitted, all with bins.
        terms: `power`, `prompt`, `generated`, as the model has them.
        basis: `total` or `active`.
        weighting: the weighting of the fit.
    """
    designs, energies_j = _resampled(cells, terms, basis)
    fitted = fit_many(designs, energies_j, weighting)
    spread = np.std(fitted, axis=0, ddof=1)
    freedom = _freedom(designs, energies_j, [_dof(cell.bins) for cell in cells], weighting)
    text = f"{REPEATS} fits to windows resampled in blocks"
    budgets = [
        [Term("fluctuation of the windows", "A", float(u), dof, text)] for u, dof in zip(spread, freedom, strict=True)
    ]
    if basis == "active":
        for budget, term in zip(budgets, _cold_idle_terms(cells, terms, weighting), strict=True):
            budget.append(term)
    return budgets


def sensor_terms(cells: list[FitCell], value: float, *, of_power: bool, config: Uncertainty) -> list[Term]:
    """Return the uncertainty terms of a coefficient that come from the sensors' gains and offsets.

    A device's share of the coefficient is its share of a window's energy. These shares differ little between windows,
    so the mean over the windows is taken.

    Args:
        cells: the windows that were fitted.
        value: the coefficient.
        of_power: whether it is the power of a fit to total energies, which offsets shift.
        config: the stated uncertainties.
    """
    by_name: dict[str, list[Term]] = {}
    for cell in cells:
        devices_j = cell.devices_j or (1.0,)
        parts = {str(index): value * energy_j / sum(devices_j) for index, energy_j in enumerate(devices_j)}
        corrections = {
            str(index): correction for index, correction in enumerate(cell.corrections) if correction is not None
        }
        for term in scale_terms(parts, 1.0 if of_power else 0.0, corrections, config):
            by_name.setdefault(term.name, []).append(term)
    return [
        replace(named_terms[0], u=sum(term.u for term in named_terms) / len(cells)) for named_terms in by_name.values()
    ]


def _cold_idle_terms(cells: list[FitCell], terms: tuple[str, ...], weighting: Weighting) -> list[Term]:
    """Return the term of each coefficient that comes from the error of the subtracted idle power.

    It is half the difference of two fits, to energies with that idle's power one standard uncertainty lower and higher:
    the error is common to all windows it was subtracted from, so their shifts add up and do not average out. Different
    idles, such as those of different sessions, err independently.
    """
    durations_s = np.array([cell.duration_s for cell in cells])
    energy_j = np.array([float(cell.energy_active_j or 0.0) for cell in cells])
    columns = {
        "power": durations_s,
        "prompt": np.array([cell.prompt_tokens for cell in cells]),
        "generated": np.array([cell.generated_tokens for cell in cells]),
    }
    design = np.stack([columns[name] for name in terms], axis=1)
    idle_terms: list[list[Term]] = [[] for _ in terms]
    for idle in dict.fromkeys(cell.cold_idle for cell in cells if cell.cold_idle):
        budget = Budget(idle)
        shared = np.array([cell.cold_idle == idle for cell in cells])
        shift_j = np.where(shared, budget.combined * durations_s, 0.0)
        shifted_j = np.maximum(np.stack([energy_j + shift_j, energy_j - shift_j]), LEAST_J)
        low, high = fit_many(np.stack([design, design]), shifted_j, weighting)
        for parts, u in zip(idle_terms, np.abs(low - high) / 2, strict=True):
            parts.append(Term("cold idle", "A", float(u), budget.dof, "common to the windows it was subtracted from"))
    return [
        merged(parts)[0] if parts else Term("cold idle", "A", 0.0, math.inf, "no idle was subtracted")
        for parts in idle_terms
    ]


def _resampled(
    cells: list[FitCell], terms: tuple[str, ...], basis: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return designs of shape (REPEATS, cells, terms) and energies of shape (REPEATS, cells)."""
    random = np.random.default_rng(len(cells))
    columns = {name: np.zeros((REPEATS, len(cells))) for name in ("power", "prompt", "generated", "energy")}
    for index, cell in enumerate(cells):
        # The sums of the bins carry the fluctuation; the cell's own sums are what was fitted.
        energy_j = cell.energy_total_j if basis == "total" else float(cell.energy_active_j or 0.0)
        columns["power"][:, index] = cell.duration_s
        for name, value, bins in (
            ("prompt", cell.prompt_tokens, cell.bins.prompt_tokens if cell.bins else None),
            ("generated", cell.generated_tokens, cell.bins.generated_tokens if cell.bins else None),
            ("energy", energy_j, cell.bins.energy_j if cell.bins else None),
        ):
            drawn = np.zeros(REPEATS)
            if cell.bins is not None and bins is not None and len(bins) >= MIN_BINS:
                block = _block(cell.bins)
                chosen = resamples(len(bins), block, REPEATS, index)
                # As in `ratio_error`: for the variation that so few blocks cannot show.
                drawn = (bins[chosen].sum(axis=1) - bins.sum()) * math.sqrt(len(bins) / (len(bins) - block))
            columns[name][:, index] = np.maximum(value + drawn, 0.0)
        columns["energy"][:, index] += random.normal(0.0, cell.edges_u_j, REPEATS)
    columns["energy"] = np.maximum(columns["energy"], LEAST_J)
    return np.stack([columns[name] for name in terms], axis=2), columns["energy"]


def _block(bins: Bins) -> int:
    """Return one block length for a window, so that its energy and its tokens stay together."""
    series = (bins.energy_j, bins.generated_tokens)
    return max((block_length(values) for values in series if float(np.ptp(values)) > 0), default=1)


def _dof(bins: Bins | None) -> float:
    enough = bins is not None and len(bins.energy_j) >= MIN_BINS
    return max(len(bins.energy_j) / _block(bins) - 1.0, 1.0) if enough and bins is not None else 1.0


def _freedom(
    designs: NDArray[np.float64], energies_j: NDArray[np.float64], dofs: list[float], weighting: Weighting
) -> list[float]:
    """Return the degrees of freedom of each coefficient, by Welch and Satterthwaite over the windows.

    A coefficient often depends on one window, as the energy of a prompt token does on the prefill window; then it has
    hardly more degrees of freedom than that window.
    """
    design, energy_j = designs.mean(axis=0), energies_j.mean(axis=0)
    change = sensitivities(design, energy_j, weighting)
    residuals_j = energies_j - designs @ (change @ energy_j)
    parts = (change * np.std(residuals_j, axis=0, ddof=1)) ** 2
    spread = (parts**2 / np.array(dofs)).sum(axis=1)
    return [float(p.sum() ** 2 / s) if s > 0 else math.inf for p, s in zip(parts, spread, strict=True)]
