"""Stage `fit`: what a token costs on one server, by each model of a family, over all its windows.

    two_term     E_active = a prompt + b generated
    power_term   E_total  = P0 T + a prompt + b generated

The models are given side by side and none is picked, because several fit alike and attribute energy to tokens
differently. `two_term` is the simplest. It cannot be right where each engine step costs the same whatever its batch,
which is what P0 stands for; its held-out error says so. Prompt tokens are those not served from the prefix cache. A fit
can pass through its own windows and still be useless for a token: coefficients are refused by the error on windows left
out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from inference_energy.analysis.figures import make_figure
from inference_energy.analysis.fit.cells import FitCell, gather_cells
from inference_energy.analysis.fit.uncertainty import (
    LinearFit,
    Matrix,
    Weighting,
    coefficient_terms,
    condition_number,
    fit_linear,
    held_out_ratios,
    sensor_terms,
)
from inference_energy.analysis.uncertainty.budget import with_budget
from inference_energy.config.analysis import Uncertainty
from inference_energy.contracts.documents.document import VERSION
from inference_energy.contracts.documents.energy import (
    EnergyDocument,
    FitDocument,
    FitModel,
    FitResidual,
    HeldOutErrors,
)
from inference_energy.contracts.documents.windows import SteadyLoadDocument
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.grades import weakest
from inference_energy.contracts.reason_codes import MAX_HELD_OUT_ERROR, MIN_DEGREES_OF_FREEDOM, reason
from inference_energy.errors import InputError

Term = Literal["power", "prompt", "generated"]

MAX_CONDITION_NUMBER = 30.0
WEIGHTING: Weighting = "relative"
UNITS: dict[Term, str] = {"power": "W", "prompt": "J/token", "generated": "J/token"}


@dataclass(frozen=True)
class Model:
    """A model of the family: its terms, and the energy that it explains."""

    name: str
    formula: str
    terms: tuple[Term, ...]
    basis: Literal["total", "active"]


MODELS = (
    Model("two_term", "E_active = a * prompt + b * generated", ("prompt", "generated"), "active"),
    Model("power_term", "E_total = P0 * T + a * prompt + b * generated", ("power", "prompt", "generated"), "total"),
)


def fit_model(
    model: Model, cells: list[FitCell], weighting: Weighting = "relative", uncertainty: Uncertainty | None = None
) -> FitModel:
    """Fit one model; its errors are given where a fit can be made at all, even if its coefficients are refused.

    Args:
        model: the model.
        cells: the windows; for `active` those without a cold idle are left out.
        weighting: see `fit.uncertainty`.
        uncertainty: what is stated of the sensors; None gives no intervals.
    """
    used = [cell for cell in cells if model.basis == "total" or _above_zero(cell.energy_active_j)]
    energy_j = np.array([_energy_j(cell, model) for cell in used], dtype=np.float64)
    design = np.array([[_column(cell, term) for term in model.terms] for cell in used], dtype=np.float64)
    dof = len(used) - len(model.terms)
    refused: list[Reason] = []
    if dof < MIN_DEGREES_OF_FREEDOM:
        refused.append(_too_few(model, cells, used))
    condition = condition_number(design, energy_j, weighting) if dof >= 1 else None
    alike = _collinear(condition) if condition is not None else []
    refused += alike
    boundaries = sorted({cell.boundary for cell in used})
    if len(boundaries) > 1:
        refused.append(reason("mixed_boundaries", f"The windows measured different things: {', '.join(boundaries)}."))
    values: dict[Term, float] = {}
    notes: list[Reason] = []
    fit: LinearFit | None = None
    held_out: HeldOutErrors | None = None
    if condition is not None and not alike and len(boundaries) <= 1:
        fit = fit_linear(design, energy_j, weighting)
        values = dict(zip(model.terms, fit.coefficients.tolist(), strict=True))
        negative = _negative(values)
        if negative:
            fit = None
        else:
            held_out = _held_out(used, held_out_ratios(design, energy_j, weighting))
        refused += negative or _generalises_poorly(held_out)
        notes = _unknown_cached(used)
    figures = {
        term: make_figure(
            values.get(term) if not refused else None,
            UNITS[term],
            basis=model.basis,
            boundary=" / ".join(boundaries) or "nothing",
            grade=weakest([cell.grade for cell in used]) if used else "sampled",
            reasons=refused,
            notes=notes,
        )
        for term in model.terms
    }
    if uncertainty is not None and not refused and all(cell.bins is not None for cell in used):
        figures = _with_intervals(figures, model, used, weighting, uncertainty)
    ratios = None if fit is None else fit.predicted_j / energy_j
    return FitModel(
        name=model.name,
        formula=model.formula,
        energy_basis=model.basis,
        weighting=weighting,
        cells=[cell.name for cell in used],
        dof=dof,
        condition_number=condition if condition is not None and np.isfinite(condition) else None,
        r2=None if fit is None else fit.r2,
        residuals=[] if fit is None else _residuals(used, energy_j, fit.predicted_j),
        mean_abs_relative_error=None if ratios is None else float(np.mean(np.abs(ratios - 1))),
        leave_one_out=held_out,
        refused=refused,
        coefficients={str(term): figure for term, figure in figures.items()},
    )


def _residuals(cells: list[FitCell], energy_j: Matrix, predicted_j: Matrix) -> list[FitResidual]:
    ratios = (predicted_j / energy_j).tolist()
    return [
        FitResidual(cell=cell.name, measured_j=measured, predicted_j=predicted, ratio=ratio)
        for cell, measured, predicted, ratio in zip(cells, energy_j.tolist(), predicted_j.tolist(), ratios, strict=True)
    ]


def _with_intervals(
    figures: dict[Term, Figure], model: Model, cells: list[FitCell], weighting: Weighting, uncertainty: Uncertainty
) -> dict[Term, Figure]:
    if any(cell.grade == "modelled" for cell in cells):
        return figures
    terms = coefficient_terms(cells, model.terms, model.basis, weighting)
    budgeted = {}
    for (term, figure), fluctuation in zip(figures.items(), terms, strict=True):
        of_power = term == "power" and model.basis == "total"
        scale = sensor_terms(cells, figure.value or 0.0, of_power=of_power, config=uncertainty)
        budgeted[term] = with_budget(figure, [*scale, *fluctuation])
    return budgeted


def _above_zero(value: float | None) -> bool:
    return value is not None and value > 0


def _energy_j(cell: FitCell, model: Model) -> float:
    value = cell.energy_total_j if model.basis == "total" else cell.energy_active_j
    return float(value or 0.0)


def _column(cell: FitCell, term: Term) -> float:
    return {"power": cell.duration_s, "prompt": cell.prompt_tokens, "generated": cell.generated_tokens}[term]


def _too_few(model: Model, cells: list[FitCell], used: list[FitCell]) -> Reason:
    without = len(cells) - len(used)
    more = f"; {without} more have no cold idle to subtract" if without else ""
    return reason(
        "too_few_cells",
        f"{len(used)} usable window(s) for {len(model.terms)} coefficients{more}: measure at least "
        f"{len(model.terms) + MIN_DEGREES_OF_FREEDOM} windows of different load on this server.",
    )


def _collinear(condition: float) -> list[Reason]:
    if condition <= MAX_CONDITION_NUMBER:
        return []
    return [
        reason(
            "collinear",
            f"The windows are too alike to tell the terms apart: condition number {condition:.3g}, at most "
            f"{MAX_CONDITION_NUMBER:g} is allowed. Add windows of kind prefill and decode, and other rates.",
        )
    ]


def _negative(values: dict[Term, float]) -> list[Reason]:
    below = [f"{term} {value:.3g} {UNITS[term]}" for term, value in values.items() if value < 0]
    if not below:
        return []
    return [reason("negative_coefficient", f"The best fit has a negative coefficient: {', '.join(below)}.")]


def _generalises_poorly(held_out: HeldOutErrors | None) -> list[Reason]:
    if held_out is None or held_out.mean_abs_relative_error <= MAX_HELD_OUT_ERROR:
        return []
    return [
        reason(
            "poor_generalisation",
            f"A fit to the other windows misses the one left out by {100 * held_out.mean_abs_relative_error:.0f} % "
            f"on average, at worst by {100 * held_out.worst_abs_relative_error:.0f} %; at most "
            f"{100 * MAX_HELD_OUT_ERROR:g} % on average is allowed.",
        )
    ]


def _unknown_cached(cells: list[FitCell]) -> list[Reason]:
    unknown = [cell.name for cell in cells if not cell.cached_known]
    if not unknown:
        return []
    return [
        reason(
            "cached_tokens_unknown",
            f"The server did not say how many prompt tokens of {', '.join(unknown)} came from its cache: all count as "
            "computed.",
        )
    ]


def _held_out(cells: list[FitCell], ratios: list[float] | None) -> HeldOutErrors | None:
    if ratios is None:
        return None
    errors = [abs(ratio - 1) for ratio in ratios]
    return HeldOutErrors(
        mean_abs_relative_error=float(np.mean(errors)),
        worst_abs_relative_error=max(errors),
        ratios={cell.name: ratio for cell, ratio in zip(cells, ratios, strict=True)},
    )


def fit_server(
    sessions: Iterable[tuple[EnergyDocument, SteadyLoadDocument]], uncertainty: Uncertainty | None = None
) -> FitDocument:
    """Return the fit of one server on one machine.

    Args:
        sessions: energy.json and steady_load.json of each of its sessions.
        uncertainty: what is stated of the sensors; None gives no intervals.

    Raises:
        InputError: the sessions are of different servers or machines.
    """
    # In the order of names, so that the result does not depend on that of the files.
    ordered = sorted(sessions, key=lambda documents: documents[0].session)
    owners = {(energy.machine, energy.server) for energy, _ in ordered}
    if len(owners) != 1:
        raise InputError(f"a fit takes the sessions of one server on one machine, but these are of {sorted(owners)}")
    (machine, server) = owners.pop()
    cells, excluded = gather_cells(ordered)
    return FitDocument(
        version=VERSION,
        machine=machine,
        server=server,
        weighting=WEIGHTING,
        models={model.name: fit_model(model, cells, WEIGHTING, uncertainty) for model in MODELS},
        cells=[cell.record() for cell in cells],
        excluded=excluded,
        missing_cells=missing_cells(cells),
    )


def missing_cells(cells: list[FitCell]) -> list[str]:
    """Return the windows that a fit needs and that are not among the usable ones, in words."""
    kinds = [cell.kind for cell in cells]
    missing = []
    if "prefill" not in kinds:
        missing.append("a window of kind prefill: long prompts, max_tokens 1")
    if "decode" not in kinds:
        missing.append("a window of kind decode: short prompts, long outputs")
    if kinds.count("steady") < 2:
        missing.append("steady windows at two different rates")
    return missing
