"""Scores of the estimators against measured energies.

With the ratio r = estimate / measured of each row: MAPE is the mean of |r - 1|; exp(mean |ln r|) is the typical factor
in either direction, which unlike MAPE does not favor low estimates; `within_two` is the share of rows with r between
1/2 and 2.

No estimator is scored on rows that it was fitted to or looks up: `lookup` and `scale` do not use the rows of the
scored model, and the energy roofline is fitted without them. Its in-sample score is listed separately and labelled.
"""

from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from inference_energy.contracts.documents.estimates import EstimatorScore
from inference_energy.estimate.batch import Cases
from inference_energy.estimate.calibration import EnergyCalibration, parse_calibration, shipped_calibration
from inference_energy.estimate.calibration_fit import dense_16_bit, fit_rows
from inference_energy.estimate.compare import ESTIMATORS, estimator_of, scored_rows
from inference_energy.estimate.estimator import Basis, Problem, Values, spelled
from inference_energy.estimate.estimators.ecologits import gpu_energy_j
from inference_energy.estimate.estimators.scale import BASELINE_MODEL
from inference_energy.estimate.reference_rows import PUBLISHED, WINDOWS, MeasuredRow, cases_of, shipped_rows
from inference_energy.estimate.shapes.shape import Array


@dataclass(frozen=True)
class Score:
    """The deviation of one estimator from some rows.

    Attributes:
        label: the estimator, with its special conditions.
        rows: rows that were scored.
        mape: mean absolute relative error.
        log_error: exp(mean |ln ratio|), 1 at best.
        within_two: share within a factor of two.
        median_ratio: estimate over measured; above 1 it is too high.
        covered: share of the rows inside the estimator's range; None if it gives no range.
        why: reason for a missing score.
    """

    label: str
    rows: int
    mape: float = float("nan")
    log_error: float = float("nan")
    within_two: float = float("nan")
    median_ratio: float = float("nan")
    covered: float | None = None
    why: str | None = None

    def facts(self) -> EstimatorScore:
        """Return the score as documents hold it: null where there is none."""
        scored = self.rows > 0
        return EstimatorScore(
            rows=self.rows,
            mape=self.mape if scored else None,
            exp_mean_abs_ln_ratio=self.log_error if scored else None,
            within_factor_two=self.within_two if scored else None,
            median_ratio=self.median_ratio if scored else None,
            covered=self.covered,
            unavailable=self.why,
        )


def score(
    label: str,
    estimated_j: Array,
    measured_j: Array,
    low: Array | None = None,
    high: Array | None = None,
    why: str | None = None,
) -> Score:
    """Return the score over the rows that have an estimate.

    Args:
        label: name of the scored estimates.
        estimated_j: shape (rows,), NaN without an estimate.
        measured_j: shape (rows,), above zero.
        low: lower end of the estimator's range.
        high: upper end of that range.
        why: the reason if no row has an estimate.
    """
    has_estimate = ~np.isnan(estimated_j)
    if not has_estimate.any():
        return Score(label, 0, why=why or "no row has its inputs")
    ratios = estimated_j[has_estimate] / measured_j[has_estimate]
    logs = np.abs(np.log(ratios))
    covered = None
    if low is not None and high is not None and not np.isnan(low[has_estimate]).any():
        is_covered = (low[has_estimate] <= measured_j[has_estimate]) & (measured_j[has_estimate] <= high[has_estimate])
        covered = float(is_covered.mean())
    return Score(
        label,
        int(has_estimate.sum()),
        float(np.mean(np.abs(ratios - 1))),
        float(np.exp(logs.mean())),
        float((logs <= np.log(2)).mean()),
        float(np.median(ratios)),
        covered,
    )


SPECIAL = {
    "lookup": "lookup, without the rows of the scored model",
    "hungry": "hungry, the GPUs' part",
    "energy-roofline": "energy-roofline, fitted without the scored model",
    "scale": f"scale, middle of the band, {BASELINE_MODEL} as the baseline and not scored",
}


@dataclass(frozen=True)
class Group:
    """Rows of one kind, and each estimator's score on them.

    Attributes:
        title: description of the rows.
        rows: the rows.
        estimates: J per output token by estimator, shape (rows,), NaN if missing or not to be scored.
        scores: one score per estimator.
    """

    title: str
    rows: tuple[MeasuredRow, ...]
    estimates: dict[str, Array]
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class Scorecard:
    """All groups, and the rows that are shown but not scored, with their estimates."""

    groups: tuple[Group, ...]
    shown: tuple[MeasuredRow, ...]
    shown_estimates: dict[str, Array] = field(default_factory=dict)


def published_scorecard() -> Scorecard:
    """Return the scorecard of all shipped rows."""
    fitted = tuple(dense_16_bit())
    unfitted = [row for row in scored_rows() if row not in fitted]
    windows = tuple(row for row in shipped_rows(WINDOWS) if not row.is_prefill)
    shown = tuple(row for row in shipped_rows(PUBLISHED) if row.use != "score")
    calibration = shipped_calibration("h100-published")
    groups = [
        _fitted_group("Published H100 rows of dense models with 16 bit weights", fitted),
        *(
            _group(title, tuple(row for row in unfitted if row.shape.is_moe == moe))
            for title, moe in (
                ("Published H100 rows of Llama-3.1-405B-FP8, which the energy roofline was not fitted to", False),
                ("Published H100 rows of Qwen3-30B-A3B (experts), which the energy roofline was not fitted to", True),
            )
        ),
        _group("All published H100 rows together", (*fitted, *unfitted)),
        _group("Measured H100 windows of the Llama-3.1-8B shape, whose throughput is known", windows),
    ]
    cases = cases_of(shown)
    beside = {
        estimator.id: estimator.estimate(cases, Basis(scored_rows(), calibration)).scored
        for estimator in ESTIMATORS
        if estimator.id != "scale"
    }
    return Scorecard(tuple(groups), shown, beside)


@cache
def calibration_without(name: str) -> EnergyCalibration:
    """Return `h100-published` fitted without the rows of a model, or as shipped if it has no such rows."""
    shipped = shipped_calibration("h100-published")
    if name not in shipped.models:
        return shipped
    rows = [row for row in dense_16_bit() if row.shape.name != name]
    return parse_calibration(fit_rows(rows, f"{shipped.name} without {name}", {}), name)


def without_model(name: str) -> Basis:
    """Return the basis for scoring a model: without its rows, and without anything fitted to them."""
    rows = tuple(row for row in scored_rows() if row.shape.name != name)
    return Basis(rows, calibration_without(name))


def fair_estimates(rows: tuple[MeasuredRow, ...], name: str) -> Values:
    """Return an estimator's values for measured rows, each from a basis without the rows of its own model.

    `scale` keeps its baseline, and has no value for the baseline's own model.
    """
    estimator = estimator_of(name)
    parts = []
    for row in rows:
        is_baseline = name == "scale" and row.shape.name == BASELINE_MODEL
        basis = Basis((), None) if is_baseline else without_model(row.shape.name)
        parts.append(estimator.estimate(cases_of([row]), basis))
    return _joined(parts)


def _fitted_group(title: str, rows: tuple[MeasuredRow, ...]) -> Group:
    """Return a group of rows that the shipped calibration is fitted to, with its in-sample score listed separately."""
    group = _group(title, rows)
    in_sample = shipped_calibration("h100-published").output_tokens(cases_of(rows)).energy_j
    line = score("(in sample: energy-roofline fitted to these rows)", in_sample, _measured(rows))
    return replace(group, scores=(*group.scores, line))


def _group(title: str, rows: tuple[MeasuredRow, ...]) -> Group:
    cases, measured = cases_of(rows), _measured(rows)
    estimates: dict[str, Array] = {}
    scores: list[Score] = []
    for name in (estimator.id for estimator in ESTIMATORS):
        values = fair_estimates(rows, name)
        estimates[name] = values.scored
        why = "; ".join(dict.fromkeys(spelled(problem.detail) for problem in values.problems)) or None
        banded = name in ("scale", "energy-roofline")
        scores.append(
            score(
                SPECIAL.get(name, name),
                values.scored,
                measured,
                values.low if banded else None,
                values.high if banded else None,
                why,
            )
        )
        if name == "ecologits" and not np.isnan(cases.batch).all():
            scores.append(score("ecologits with the true batch and GPUs", _true_ecologits(cases), measured))
    return Group(title, rows, estimates, tuple(scores))


def _true_ecologits(cases: Cases) -> Array:
    return gpu_energy_j(cases.active / 1e9, cases.batch) * cases.gpus


def _measured(rows: tuple[MeasuredRow, ...]) -> Array:
    return np.array([row.output_j for row in rows])


def _joined(parts: list[Values]) -> Values:
    def together(name: str) -> Array:
        return np.concatenate([getattr(part, name) for part in parts])

    problems = tuple(dict.fromkeys(problem.detail for part in parts for problem in part.problems))
    all_rows = np.ones(len(parts), dtype=bool)
    return Values(
        together("point"),
        together("low"),
        together("high"),
        tuple(Problem(all_rows, detail) for detail in problems),
        gpu=together("gpu") if all(part.gpu is not None for part in parts) else None,
    )
