"""Lookup: the nearest published row by parameters and batch, on the same GPU.

    E = E of the row with the smallest |ln(N / N_row)| + |ln(N_tot / N_tot,row)| + |ln(B / B_row)|

Source: the shipped rows of the ML.ENERGY Leaderboard v3. Nothing is scaled: the estimate was measured, though on
another model. Without a batch there is no point estimate, only the range over the nearest model's batches: over all
rows of the leaderboard it spans a factor of 7.9 in the median, and up to 27.

Limits: H100 only; bf16 rows except for one model; chat of a few hundred tokens.
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
    # Distances are computed per model, not per case, because there are far fewer models than cases.
    distances = np.array([[_distance(shape, row.shape) for row in rows] for shape in cases.shapes])
    other_gpu = np.array([[row.gpu.name != gpu.name for row in rows] for gpu in cases.cards])
    distance = distances[cases.model] + np.where(other_gpu, _FAR, 0.0)[cases.card]
    has_batch: Mask = np.isfinite(cases.batch)
    batches = np.log([row.batch for row in rows])
    nearest = np.argmin(distance + np.abs(np.log(np.where(has_batch, cases.batch, 1.0))[:, None] - batches), axis=1)
    low, high = nothing.copy(), nothing.copy()
    is_nearest: Mask = np.isclose(distance[~has_batch], distance[~has_batch].min(axis=1, keepdims=True))
    low[~has_batch] = np.where(is_nearest, energies, np.inf).min(axis=1)
    high[~has_batch] = np.where(is_nearest, energies, -np.inf).max(axis=1)

    def notes(case: int) -> list[str]:
        if np.isnan(cases.batch[case]):
            return ["no batch is given ({batch}): the range over the batches of the nearest model"]
        row = rows[nearest[case]]
        return [f"row: {row.label} ({row.source})"]

    gpu_names = ", ".join(dict.fromkeys(row.gpu.name for row in rows))
    without_rows = np.array([bool(row.all()) for row in other_gpu])
    no_rows = Problem(without_rows[cases.card], f"no published row for this GPU; there are rows for {gpu_names}")
    return Values(np.where(has_batch, energies[nearest], np.nan), low, high, notes=notes).without([no_rows])


def _distance(shape: ModelShape, other: ModelShape) -> float:
    """Return the distance of two shapes in active and in all parameters."""
    active = abs(math.log(shape.active_parameters / other.active_parameters))
    return active + abs(math.log(shape.parameters / other.parameters))


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
