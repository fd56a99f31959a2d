"""Lookup: the nearest published row by parameters and batch, on the same GPU.

    E = E of the row with the least |ln(N / N_row)| + |ln(N_tot / N_tot,row)| + |ln(B / B_row)|

Source: the rows of the ML.ENERGY Leaderboard v3 that are shipped. Nothing is scaled: what comes out was measured,
though on another model. Without a batch there is no point, only the range over the batches of the nearest model: over
all rows of the leaderboard it spreads 7.9-fold in the median, and up to 27-fold.

Limits: H100 only; bf16 rows but for one model; chat of a few hundred tokens.
"""

import math

import numpy as np

from inference_energy.estimate.batch import Cases
from inference_energy.estimate.estimator import Basis, Estimator, Mask, Problem, Values
from inference_energy.estimate.shapes.shape import ModelShape

_FAR = 1e9


def _compute(cases: Cases, basis: Basis) -> Values:
    rows = [row for row in basis.rows if not np.isnan(row.output_j * row.batch)]
    nothing = np.full(len(cases), np.nan)
    if not rows:
        return Values(nothing, nothing, nothing, (Problem(np.ones(len(cases), dtype=bool), "there are no rows"),))
    energies = np.array([row.output_j for row in rows])
    # Distances of models first: there are few, and a case needs them only by its model and GPU.
    models = np.array([[_distance(shape, row.shape) for row in rows] for shape in cases.shapes])
    apart = np.array([[row.gpu.name != gpu.name for row in rows] for gpu in cases.cards])
    far = models[cases.model] + np.where(apart, _FAR, 0.0)[cases.card]
    known: Mask = np.isfinite(cases.batch)
    batches = np.log([row.batch for row in rows])
    nearest = np.argmin(far + np.abs(np.log(np.where(known, cases.batch, 1.0))[:, None] - batches), axis=1)
    low, high = nothing.copy(), nothing.copy()
    own: Mask = np.isclose(far[~known], far[~known].min(axis=1, keepdims=True))
    low[~known] = np.where(own, energies, np.inf).min(axis=1)
    high[~known] = np.where(own, energies, -np.inf).max(axis=1)

    def notes(place: int) -> list[str]:
        if np.isnan(cases.batch[place]):
            return ["no batch is given (--batch): the range over the batches of the nearest model"]
        row = rows[nearest[place]]
        return [f"row: {row.label} ({row.source})"]

    there = ", ".join(dict.fromkeys(row.gpu.name for row in rows))
    elsewhere = np.array([bool(row.all()) for row in apart])
    foreign = Problem(elsewhere[cases.card], f"no published row for this GPU; there are rows for {there}")
    return Values(np.where(known, energies[nearest], np.nan), low, high, notes=notes).without([foreign])


def _distance(one: ModelShape, other: ModelShape) -> float:
    """Of two shapes, in active and in all parameters."""
    active = abs(math.log(one.active_parameters / other.active_parameters))
    return active + abs(math.log(one.parameters / other.parameters))


ESTIMATOR = Estimator(
    id="lookup",
    title="nearest published row",
    formula="the row with the least |ln N ratio| + |ln N_tot ratio| + |ln B ratio| on the same GPU",
    source="ML.ENERGY Leaderboard v3, lm-arena-chat",
    boundary="gpu",
    assumes=("chat of a few hundred tokens, vLLM 0.11", "a model of about the size costs what that row did"),
    leaves_out=("all that differs from that row: nothing is scaled",),
    needs=(),
    compute=_compute,
)
