"""The family of models, side by side: none is picked, because several fit alike and say different things of a token.

The family of models, side by side: none is picked, because several fit alike and say different things of a token.

    two_term     E_active = a prompt + b generated
    power_term   E_total  = P0 T + a prompt + b generated

`two_term` is the simplest. It cannot be right where each engine step costs the same whatever its batch, which is what
P0 stands for; its held-out error says so. Prompt tokens are those not served from the prefix cache. A fit can pass
through its own windows and still say nothing of a token: what refuses coefficients is the error on windows left out.

Stage `fit`: what a token costs on one server, by each model of the family, over all its windows.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from inference_energy.analysis.figures import MAX_HELD_OUT_ERROR, MIN_DEGREES_OF_FREEDOM, make_figure, reason
from inference_energy.analysis.fit.cells import FitCell, gather_cells
from inference_energy.analysis.fit.uncertainty import (
    Weighting,
    coefficient_terms,
    condition_number,
    fit_linear,
    held_out_ratios,
    sensor_terms,
)
from inference_energy.analysis.uncertainty.budget import with_budget
from inference_energy.config.analysis import Uncertainty
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.grades import weakest
from inference_energy.errors import InputError

Term = Literal["power", "prompt", "generated"]

MAX_CONDITION_NUMBER = 30.0
UNITS: dict[Term, str] = {"power": "W", "prompt": "J/token", "generated": "J/token"}


@dataclass(frozen=True)
class Model:
    """A member of the family: its terms, and which energy it explains."""

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
) -> dict[str, Any]:
    """Fit one model.

    Args:
        model: which.
        cells: the windows; for `active` those without a cold idle are left out.
        weighting: see `fit.linear`.
        uncertainty: what is not known of the sensors; None gives no intervals.

    Returns:
        `coefficients` (a figure a term), `r2`, `residuals` (predicted / measured, a cell each),
        `mean_abs_relative_error`, `leave_one_out`, `condition_number`, `dof`, `cells` used, and `refused`: the reasons
        for which the coefficients have no value. The errors are given all the same where a fit could be made at all.
    """
    used = [cell for cell in cells if model.basis == "total" or _above_zero(cell.energy_active_j)]
    energy_j = np.array([_energy_j(cell, model) for cell in used], dtype=np.float64)
    design = np.array([[_column(cell, term) for term in model.terms] for cell in used], dtype=np.float64)
    dof = len(used) - len(model.terms)
    result: dict[str, Any] = {
        "name": model.name,
        "formula": model.formula,
        "energy_basis": model.basis,
        "weighting": weighting,
        "cells": [cell.name for cell in used],
        "dof": dof,
        "condition_number": None,
        "r2": None,
        "residuals": [],
        "mean_abs_relative_error": None,
        "leave_one_out": None,
    }
    refused: list[Reason] = []
    values: dict[Term, float] = {}
    notes: list[Reason] = []
    if dof < MIN_DEGREES_OF_FREEDOM:
        refused.append(_too_few(model, cells, used))
    possible = dof >= 1
    if possible:
        condition = condition_number(design, energy_j, weighting)
        result["condition_number"] = condition if np.isfinite(condition) else None
        refused += (alike := _collinear(condition))
        possible = not alike
    if len({cell.boundary for cell in used}) > 1:
        names = ", ".join(sorted({cell.boundary for cell in used}))
        refused.append(reason("mixed_boundaries", f"The windows measured different things: {names}."))
        possible = False
    if possible:
        fitted = fit_linear(design, energy_j, weighting)
        values = dict(zip(model.terms, fitted.coefficients.tolist(), strict=True))
        negative = _negative(values)
        if not negative:
            ratios = (fitted.predicted_j / energy_j).tolist()
            result["r2"] = fitted.r2
            result["residuals"] = [
                {"cell": cell.name, "measured_j": e, "predicted_j": p, "ratio": r}
                for cell, e, p, r in zip(used, energy_j.tolist(), fitted.predicted_j.tolist(), ratios, strict=True)
            ]
            result["mean_abs_relative_error"] = float(np.mean(np.abs(np.array(ratios) - 1)))
            result["leave_one_out"] = _held_out(used, held_out_ratios(design, energy_j, weighting))
        refused += negative or _generalises_poorly(result["leave_one_out"])
        notes = _unknown_cached(used)
    result["refused"] = [{"code": r.code, "detail": r.detail} for r in refused]
    figures = {
        term: make_figure(
            values.get(term) if not refused else None,
            UNITS[term],
            basis=model.basis,
            boundary=" / ".join(sorted({cell.boundary for cell in used})) or "nothing",
            grade=weakest([cell.grade for cell in used]) if used else "sampled",
            reasons=refused,
            notes=notes,
        )
        for term in model.terms
    }
    if uncertainty is not None and not refused and all(cell.bins is not None for cell in used):
        figures = _with_intervals(figures, model, used, weighting, uncertainty)
    result["coefficients"] = {term: figure.as_dict() for term, figure in figures.items()}
    return result


def _with_intervals(
    figures: dict[Term, Figure], model: Model, cells: list[FitCell], weighting: Weighting, uncertainty: Uncertainty
) -> dict[Term, Figure]:
    if any(cell.grade == "modelled" for cell in cells):
        return figures
    terms = coefficient_terms(cells, model.terms, model.basis, weighting)
    found = {}
    for (term, figure), own in zip(figures.items(), terms, strict=True):
        of_power = term == "power" and model.basis == "total"
        scale = sensor_terms(cells, figure.value or 0.0, of_power=of_power, config=uncertainty)
        found[term] = with_budget(figure, [*scale, *own])
    return found


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


def _generalises_poorly(held_out: dict[str, Any] | None) -> list[Reason]:
    if held_out is None or held_out["mean_abs_relative_error"] <= MAX_HELD_OUT_ERROR:
        return []
    return [
        reason(
            "poor_generalisation",
            f"A fit to the other windows misses the one left out by {100 * held_out['mean_abs_relative_error']:.0f} % "
            f"on average, at worst by {100 * held_out['worst_abs_relative_error']:.0f} %; at most "
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


def _held_out(cells: list[FitCell], ratios: list[float] | None) -> dict[str, Any] | None:
    if ratios is None:
        return None
    errors = [abs(ratio - 1) for ratio in ratios]
    return {
        "mean_abs_relative_error": float(np.mean(errors)),
        "worst_abs_relative_error": max(errors),
        "ratios": {cell.name: ratio for cell, ratio in zip(cells, ratios, strict=True)},
    }


WEIGHTING: Weighting = "relative"


def fit_server(
    sessions: list[tuple[dict[str, Any], dict[str, Any]]], uncertainty: Uncertainty | None = None
) -> dict[str, Any]:
    """fit.json of one server on one machine.

    Args:
        sessions: (energy.json, steady_load.json) of each of its sessions.
        uncertainty: what is not known of the sensors; None gives no intervals.

    Returns:
        `machine`, `server`, `weighting`, `models` by name, `cells` used, `excluded` with reasons, and `missing_cells`:
        kinds of window that would tell the terms apart and were not measured.

    Raises:
        InputError: the sessions are of different servers or machines.
    """
    owners = {(energy["machine"], energy["server"]) for energy, _ in sessions}
    if len(owners) != 1:
        raise InputError(f"a fit takes the sessions of one server on one machine, but these are of {sorted(owners)}")
    (machine, server) = owners.pop()
    # In the order of names, so that the result does not depend on that of the files.
    cells, excluded = gather_cells(sorted(sessions, key=lambda parts: str(parts[0]["session"])))
    return {
        "version": 1,
        "machine": machine,
        "server": server,
        "weighting": WEIGHTING,
        "models": {model.name: fit_model(model, cells, WEIGHTING, uncertainty) for model in MODELS},
        "cells": [
            {
                "cell": cell.name,
                "kind": cell.kind,
                "duration_s": cell.duration_s,
                "uncached_prompt_tokens": cell.prompt_tokens,
                "cached_tokens_known": cell.cached_known,
                "generated_tokens": cell.generated_tokens,
                "energy_total_j": cell.energy_total_j,
                "energy_active_j": cell.energy_active_j,
            }
            for cell in cells
        ],
        "excluded": excluded,
        "missing_cells": missing_cells(cells),
    }


def missing_cells(cells: list[FitCell]) -> list[str]:
    """Windows that a fit needs and that are not among the usable ones, in words."""
    kinds = [cell.kind for cell in cells]
    wanted = []
    if "prefill" not in kinds:
        wanted.append("a window of kind prefill: long prompts, max_tokens 1")
    if "decode" not in kinds:
        wanted.append("a window of kind decode: short prompts, long outputs")
    if kinds.count("steady") < 2:
        wanted.append("steady windows at two different rates")
    return wanted
