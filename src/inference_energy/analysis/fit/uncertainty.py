"""Intervals of a fit's coefficients: what measuring leaves open *within* the model.

The fluctuation of each window is propagated by resampling its bins in blocks, all windows at once, and fitting again;
the edges of the windows by shifting their energies at random by as much; the sensors' gain and offset are common to all
windows, so the gain scales every coefficient and the offset of a total energy is a power. How wrong the model itself
may be is no part of it: the error on windows left out says that.
"""

import math

import numpy as np
from numpy.typing import NDArray

from inference_energy.analysis.fit.cells import Bins, Cell
from inference_energy.analysis.fit.linear import Weighting, fit_many, sensitivities
from inference_energy.analysis.uncertainty.bootstrap import MIN_BINS, block_length, resamples
from inference_energy.analysis.uncertainty.budget import Term
from inference_energy.config.analysis import Uncertainty

REPEATS = 400


def coefficient_terms(
    cells: list[Cell], terms: tuple[str, ...], basis: str, weighting: Weighting, config: Uncertainty
) -> list[list[Term]]:
    """The budget's terms of each coefficient, in the order of `terms`; without their gain, see `gain_share`.

    Args:
        cells: the windows that were fitted, all with bins.
        terms: `power`, `prompt`, `generated`, as the model has them.
        basis: `total` or `active`.
        weighting: that of the fit.
        config: what is not known of the sensors.
    """
    designs, energies_j = _resampled(cells, terms, basis)
    fitted = fit_many(designs, energies_j, weighting)
    spread = np.std(fitted, axis=0, ddof=1)
    freedom = _freedom(designs, energies_j, [_dof(cell.bins) for cell in cells], weighting)
    text = f"{REPEATS} fits to windows resampled in blocks"
    found = [
        [Term("fluctuation of the windows", "A", float(u), dof, text)] for u, dof in zip(spread, freedom, strict=True)
    ]
    if basis == "total" and "power" in terms:
        devices = max((len(cell.devices_j) for cell in cells), default=1)
        u = config.offset_w * math.sqrt(devices)
        found[terms.index("power")].append(
            Term("sensor offset", "B", u, math.inf, f"{config.offset_w:g} W of each device, stated")
        )
    return found


def gain_share(cells: list[Cell], config: Uncertainty) -> float:
    """Relative uncertainty that the gain gives to every coefficient; devices are independent."""
    shares = [math.sqrt(sum(e**2 for e in cell.devices_j)) / sum(cell.devices_j) for cell in cells if cell.devices_j]
    return config.gain * (float(np.mean(shares)) if shares else 1.0)


def _resampled(
    cells: list[Cell], terms: tuple[str, ...], basis: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Designs of shape (REPEATS, cells, terms) and energies of shape (REPEATS, cells)."""
    random = np.random.default_rng(len(cells))
    columns = {name: np.zeros((REPEATS, len(cells))) for name in ("power", "prompt", "generated", "energy")}
    for place, cell in enumerate(cells):
        # The sums of the bins carry the fluctuation; the cell's own sums are what was fitted.
        energy_j = cell.energy_total_j if basis == "total" else float(cell.energy_active_j or 0.0)
        columns["power"][:, place] = cell.duration_s
        for name, value, bins in (
            ("prompt", cell.prompt_tokens, cell.bins.prompt_tokens if cell.bins else None),
            ("generated", cell.generated_tokens, cell.bins.generated_tokens if cell.bins else None),
            ("energy", energy_j, cell.bins.energy_j if cell.bins else None),
        ):
            drawn = np.zeros(REPEATS)
            if cell.bins is not None and bins is not None and len(bins) >= MIN_BINS:
                block = _block(cell.bins)
                chosen = resamples(len(bins), block, REPEATS, place)
                # As in `ratio_error`: what so few blocks cannot show.
                drawn = (bins[chosen].sum(axis=1) - bins.sum()) * math.sqrt(len(bins) / (len(bins) - block))
            columns[name][:, place] = np.maximum(value + drawn, 0.0)
        columns["energy"][:, place] += random.normal(0.0, cell.edges_u_j, REPEATS)
    columns["energy"] = np.maximum(columns["energy"], 1e-9)
    return np.stack([columns[name] for name in terms], axis=2), columns["energy"]


def _block(bins: Bins) -> int:
    """One length for a window, so that its energy and its tokens stay together."""
    series = (bins.energy_j, bins.generated_tokens)
    return max((block_length(values) for values in series if float(np.ptp(values)) > 0), default=1)


def _dof(bins: Bins | None) -> float:
    known = bins is not None and len(bins.energy_j) >= MIN_BINS
    return max(len(bins.energy_j) / _block(bins) - 1.0, 1.0) if known and bins is not None else 1.0


def _freedom(
    designs: NDArray[np.float64], energies_j: NDArray[np.float64], dofs: list[float], weighting: Weighting
) -> list[float]:
    """Degrees of freedom behind each coefficient, by Welch and Satterthwaite over the windows.

    A coefficient often hangs on one window, such as that of a prompt token on the prefill window; then it has hardly
    more than that window's.
    """
    design, energy_j = designs.mean(axis=0), energies_j.mean(axis=0)
    change = sensitivities(design, energy_j, weighting)
    residuals_j = energies_j - designs @ (change @ energy_j)
    parts = (change * np.std(residuals_j, axis=0, ddof=1)) ** 2
    spread = (parts**2 / np.array(dofs)).sum(axis=1)
    return [float(p.sum() ** 2 / s) if s > 0 else math.inf for p, s in zip(parts, spread, strict=True)]
