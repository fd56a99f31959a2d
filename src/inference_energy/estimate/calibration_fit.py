"""Fits of the energy roofline: to a user's table of measured rows, or to the rows of a shipped calibration.

Weighted least squares on relative errors: the rows are divided by their energy, so that a token of 0.07 J counts as
much as one of 14 J; a row's `weight` multiplies its squared error. Standard errors are those of ordinary least squares
on the divided rows, with the residual variance estimated. The prediction interval uses this scatter or the scatter of
models left out, whichever is larger, because rows of one model are not independent.

A term that the rows cannot separate from the others is left out: if all rows are of one model they have one N, so 2 N
and the constant are the same column. A negative coefficient is left out too, because no byte and no token gives energy
back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from inference_energy import __version__
from inference_energy.errors import InputError
from inference_energy.estimate.calibration import KIND, SHIPPED, UNITS, Name, decode_columns, prompt_columns
from inference_energy.estimate.reference_rows import PUBLISHED, WINDOWS, MeasuredRow, cases_of, read_rows, shipped_rows
from inference_energy.estimate.shapes.shape import Array


def fit_table(path: Path, name: str | None = None) -> dict[str, Any]:
    """Return the calibration fitted to a table of measured rows; see `fit_rows`."""
    rows = read_rows(path)
    return fit_rows(rows, name or path.stem, {"table": path.name, "sources": _sources(rows)})


def fit_shipped(name: str) -> dict[str, Any]:
    """Return a shipped calibration, fitted again.

    Raises:
        InputError: no calibration of this name is shipped.
    """
    if name not in SHIPPED:
        raise InputError(f"--shipped {name}: there are {', '.join(SHIPPED)}")
    rows = dense_16_bit() if name == SHIPPED[0] else windows_with_batch()
    table = PUBLISHED if name == SHIPPED[0] else WINDOWS
    selection = "dense models with 16 bit weights" if name == SHIPPED[0] else "windows whose batch is known"
    provenance = {
        "table": f"estimate/data/{table}",
        "which": selection,
        "sources": _sources(rows),
        "command": f"inference-energy estimate fit --shipped {name} --output calibration-{name}.json",
    }
    return fit_rows(rows, name, provenance)


def dense_16_bit() -> list[MeasuredRow]:
    """Return the published rows that `h100-published` is fitted to."""
    return [
        row
        for row in shipped_rows(PUBLISHED)
        if row.use == "score" and not row.shape.is_moe and row.shape.weights.name == "bf16"
    ]


def windows_with_batch() -> list[MeasuredRow]:
    """Return the measured windows that `h100-windows` is fitted to."""
    return [row for row in shipped_rows(WINDOWS) if row.is_prefill or not np.isnan(row.batch)]


def _sources(rows: list[MeasuredRow]) -> list[str]:
    return list(dict.fromkeys(row.source for row in rows if row.source))


MAX_CONDITION = 30.0
"""Above this number the columns are too alike (Belsley, Kuh, Welsch, Regression Diagnostics, 1980)."""


SPARE_ROWS = 1
"""Rows required beyond the number of coefficients."""


@dataclass(frozen=True)
class Design:
    """The design matrix of a fit.

    Attributes:
        rows: the measured rows.
        terms: the terms to fit.
        columns: factors of the terms, shape (rows, terms).
        energy_j: measured J per token, shape (rows,).
        weights: weights of the rows, shape (rows,).
        prompts: `inside` or `apart`.
        notes: the terms left out, and why.
    """

    rows: tuple[MeasuredRow, ...]
    terms: tuple[Name, ...]
    columns: Array
    energy_j: Array
    weights: Array
    prompts: str
    notes: tuple[str, ...]

    def only(self, kept: Array) -> "Design":
        """Return the design with some of the rows."""
        rows = tuple(row for row, keep in zip(self.rows, kept, strict=True) if keep)
        return Design(
            rows,
            self.terms,
            self.columns[kept],
            self.energy_j[kept],
            self.weights[kept],
            self.prompts,
            self.notes,
        )

    def keeping(self, terms: tuple[Name, ...], note: str) -> "Design":
        """Return the design with some of the terms, and a note on the others."""
        indices = [self.terms.index(term) for term in terms]
        return Design(
            self.rows,
            terms,
            self.columns[:, indices],
            self.energy_j,
            self.weights,
            self.prompts,
            (*self.notes, note),
        )


@dataclass(frozen=True)
class Solution:
    """Coefficients with their covariance, the relative residuals' standard deviation, and degrees of freedom."""

    values: Array
    covariance: Array
    relative_std: float
    freedom: int


def fit_rows(rows: Sequence[MeasuredRow], name: str, provenance: dict[str, Any]) -> dict[str, Any]:
    """Fit a calibration.

    Args:
        rows: measured rows; those whose `use` is not `score` are left out.
        name: the calibration's name.
        provenance: origin of the rows and of the file; copied into the result.

    Returns:
        The content of the calibration's file.

    Raises:
        InputError: the rows are too few, too alike, or of GPUs of different kinds.
    """
    design = design_of(rows)
    design, solved = _without_negative(design)
    predicted = design.columns @ solved.values
    left_out = leave_models_out(design)
    scatter = None if left_out is None else float(np.sqrt(np.mean((left_out / design.energy_j - 1) ** 2)))
    models = list(dict.fromkeys(row.shape.name for row in design.rows))
    batches = [row.batch for row in design.rows if not row.is_prefill]
    return {
        "version": 1,
        "kind": KIND,
        "name": name,
        "grade": "modelled",
        "gpus": list(dict.fromkeys(row.gpu.name for row in design.rows)),
        "models": models,
        "dense_only": not any(row.shape.is_moe for row in design.rows),
        "prompts": design.prompts,
        "rows": len(design.rows),
        "fitted_j": [float(f"{energy_j:.9g}") for energy_j in design.energy_j],
        "batches": [min(batches), max(batches)] if batches else [0.0, 0.0],
        "coefficients": [
            {
                "term": term,
                "unit": UNITS[term],
                "value": float(value),
                "standard_error": float(error),
            }
            for term, value, error in zip(design.terms, solved.values, np.sqrt(np.diag(solved.covariance)), strict=True)
        ],
        "covariance": solved.covariance.tolist(),
        "degrees_of_freedom": solved.freedom,
        "t_95": float(stats.t.ppf(0.975, solved.freedom)),
        "residual_relative_std": solved.relative_std,
        "left_out_relative_std": scatter,
        "relative_std": max(solved.relative_std, scatter or 0.0),
        "in_sample_mape": _mape(predicted, design.energy_j),
        "leave_one_model_out_mape": None if left_out is None else _mape(left_out, design.energy_j),
        "condition_number": condition(design),
        "notes": list(design.notes),
        "toolkit": __version__,
        "provenance": provenance,
    }


def design_of(rows: Sequence[MeasuredRow]) -> Design:
    """Return the rows as a design matrix, with the terms that they can tell apart.

    Raises:
        InputError: see `fit_rows`.
    """
    scored = tuple(row for row in rows if row.use == "score")
    _check(scored)
    prefill = np.array([row.is_prefill for row in scored])
    has_lengths = all(not np.isnan(row.input_tokens * row.output_tokens) for row in scored)
    prompts_apart = bool(prefill.any()) and has_lengths
    if prefill.any() and not has_lengths:
        raise InputError(
            "rows of prompts alone need the others to tell their prompts: write input_tokens and output_tokens"
        )
    terms: tuple[Name, ...] = ("byte", "flop", "token", *(("prefill",) if prompts_apart else ()))
    cases = cases_of(scored)
    columns = np.where(
        prefill[:, None],
        prompt_columns(cases, terms) if prompts_apart else 0.0,
        decode_columns(cases, terms, prompts_apart=prompts_apart),
    )
    energy_j = np.array([row.prompt_j if row.is_prefill else row.output_j for row in scored])
    weights = np.array([row.weight for row in scored])
    notes: tuple[str, ...] = ()
    design = Design(scored, terms, columns, energy_j, weights, "apart" if prompts_apart else "inside", notes)
    if len({row.shape.active_parameters for row in scored if not row.is_prefill}) == 1:
        design = design.keeping(
            tuple(term for term in terms if term != "token"),
            "all rows have one number of active parameters, so that 2 N and a constant cannot be told apart: the "
            "constant is inside e_flop",
        )
    if prefill.all():
        design = design.keeping(("prefill",), "there are rows of prompts alone, so that only prompts can be estimated")
    if len(scored) < len(design.terms) + SPARE_ROWS:
        raise InputError(f"{len(scored)} row(s) for {len(design.terms)} coefficients: give more rows")
    condition_number = condition(design)
    if condition_number > MAX_CONDITION:
        raise InputError(
            f"the rows are too alike to tell {', '.join(design.terms)} apart (condition number "
            f"{condition_number:.0f}, above {MAX_CONDITION:.0f}): add rows of other batches and of models of "
            "other sizes"
        )
    return design


def solve(design: Design) -> Solution:
    """Solve weighted least squares on relative errors."""
    roots = np.sqrt(design.weights)
    scaled = design.columns / design.energy_j[:, None] * roots[:, None]
    lengths = np.linalg.norm(scaled, axis=0)
    # Columns hold 1e10 bytes or one token: scale them to length one first, so that the inverse keeps its digits.
    unit = scaled / lengths
    values = np.linalg.lstsq(unit, roots, rcond=None)[0]
    freedom = max(len(design.rows) - len(design.terms), 1)
    variance = float(np.sum((roots - unit @ values) ** 2)) / freedom
    covariance = variance * np.linalg.inv(unit.T @ unit) / np.outer(lengths, lengths)
    mean_weight = float(np.mean(design.weights))
    return Solution(values / lengths, covariance, float(np.sqrt(variance / mean_weight)), freedom)


def leave_models_out(design: Design) -> Array | None:
    """Predict the energies of each model's rows by a fit to the other models; None if this is impossible."""
    names = np.array([row.shape.name for row in design.rows])
    predicted = np.empty(len(names))
    for name in np.unique(names):
        kept = names != name
        rest = design.only(kept)
        if len(rest.rows) < len(design.terms) or not np.isfinite(condition(rest)):
            return None
        if len({row.shape.active_parameters for row in rest.rows}) == 1 and "token" in design.terms:
            return None
        predicted[~kept] = design.columns[~kept] @ solve(rest).values
    return predicted


def condition(design: Design) -> float:
    """Return the condition number of the weighted columns scaled to length one; infinite for a column of zeros."""
    scaled = design.columns / design.energy_j[:, None] * np.sqrt(design.weights)[:, None]
    lengths = np.linalg.norm(scaled, axis=0)
    return float("inf") if np.any(lengths == 0) else float(np.linalg.cond(scaled / lengths))


def _without_negative(design: Design) -> tuple[Design, Solution]:
    """Return the design without terms whose coefficients come out negative, and its solution."""
    solved = solve(design)
    while np.any(solved.values < 0):
        negative = design.terms[int(np.argmin(solved.values / np.sqrt(np.diag(solved.covariance))))]
        kept = tuple(term for term in design.terms if term != negative)
        if negative == "byte" or not kept:
            raise InputError(f"the fit gives a negative {negative}: the rows do not follow the energy roofline")
        design = design.keeping(kept, f"e_{negative} came out negative and is left out")
        solved = solve(design)
    return design, solved


def _check(rows: tuple[MeasuredRow, ...]) -> None:
    """Raise InputError if the rows are of several GPUs or lack a number that the fit needs."""
    if not rows:
        raise InputError("there are no rows to fit: none has `use` score")
    kinds = list(dict.fromkeys(row.gpu.name for row in rows))
    if len(kinds) > 1:
        raise InputError(f"rows of different GPUs ({', '.join(kinds)}): coefficients belong to one; give a table each")
    for row in rows:
        if row.is_prefill and np.isnan(row.input_tokens):
            raise InputError(f"{row.label}: a row of prompts alone needs input_tokens")
        if not row.is_prefill and np.isnan(row.batch):
            raise InputError(f"{row.label}: a row needs its batch to be fitted")
        if not row.is_prefill and np.isnan(row.context_tokens) and np.isnan(row.input_tokens * row.output_tokens):
            raise InputError(f"{row.label}: a row needs context_tokens, or input_tokens and output_tokens")
        if row.weight == 0:
            raise InputError(f"{row.label}: weight is 0; write use: show to leave a row out")


def _mape(predicted: Array, measured: Array) -> float:
    return float(np.mean(np.abs(predicted / measured - 1)))
