"""Scaling from one measured baseline: a band, not a point.

    E_t = E_b * (N_t / N_b) * k^log2(N_t / N_b) * mu * [G_t (1 + a (G_t - 1))] / [G_b (1 + a (G_b - 1))]
          * (BW_b / BW_t) * (TDP_t / TDP_b) * eta

with k 0.90 to 1.10, mu 0.75 to 1.8, a 0.10 to 0.15, eta 0.70 to 1.15; N are active parameters, G the GPUs. Source: an
earlier toolkit's note on energy estimation bounds.

The baseline is a published row of Llama-3.1-8B on one H100, unless another is named: the row with the nearest batch,
since the formula has no batch.

Limits: the factors multiply, so the band is very wide. Energy is assumed to grow with the number of GPUs *and* with the
parameters, which counts a larger model's GPUs twice.
"""

import numpy as np

from inference_energy.estimate.batch import Cases
from inference_energy.estimate.estimator import Basis, Estimator, Problem, Values
from inference_energy.estimate.reference_rows import MeasuredRow
from inference_energy.estimate.shapes.shape import Array

K = (0.90, 1.10)
MU = (0.75, 1.8)
A = (0.10, 0.15)
ETA = (0.70, 1.15)
BASELINE_MODEL = "Llama-3.1-8B"


def band(
    energy_j: Array, parameters: Array, gpus: tuple[Array, Array], bandwidth: Array, tdp: Array
) -> tuple[Array, Array]:
    """Return the lower and upper end of the scaled energy [J].

    Args:
        energy_j: the baseline's energy.
        parameters: active parameters, target over baseline.
        gpus: number of GPUs of the target and of the baseline.
        bandwidth: memory bandwidth, target over baseline.
        tdp: TDP, target over baseline.
    """
    scaled_j = energy_j * parameters / bandwidth * tdp
    steps = [k ** np.log2(parameters) for k in K]
    links = [gpus[0] * (1 + a * (gpus[0] - 1)) / (gpus[1] * (1 + a * (gpus[1] - 1))) for a in A]
    low = scaled_j * np.minimum(*steps) * MU[0] * np.minimum(*links) * ETA[0]
    high = scaled_j * np.maximum(*steps) * MU[1] * np.maximum(*links) * ETA[1]
    return low, high


def baselines(basis: Basis) -> list[MeasuredRow]:
    """Return the candidate baselines."""
    if basis.baseline is not None:
        return [basis.baseline]
    return [row for row in basis.rows if row.shape.name == BASELINE_MODEL and not np.isnan(row.batch * row.output_j)]


def _compute(cases: Cases, basis: Basis) -> Values:
    nothing = np.full(len(cases), np.nan)
    rows = baselines(basis)
    if not rows:
        no_baseline = Problem(np.ones(len(cases), dtype=bool), "there is no baseline of another model to start from")
        return Values(nothing, nothing, nothing, (no_baseline,))
    batches = np.log([row.batch if not np.isnan(row.batch) else 1.0 for row in rows])
    with np.errstate(divide="ignore"):
        nearest = np.argmin(np.abs(np.log(np.nan_to_num(cases.batch, nan=1.0))[:, None] - batches), axis=1)

    def of_row(values: list[float]) -> Array:
        return np.asarray(np.array(values, dtype=np.float64)[nearest])

    low, high = band(
        of_row([row.output_j for row in rows]),
        cases.active / of_row([row.shape.active_parameters for row in rows]),
        (cases.gpus, of_row([row.tensor_parallel for row in rows])),
        cases.bandwidth / of_row([row.gpu.bandwidth_bytes_per_s for row in rows]),
        cases.tdp_w / of_row([row.gpu.tdp_w for row in rows]),
    )
    return Values(nothing, low, high, notes=lambda case: _notes(rows[nearest[case]]))


def _notes(row: MeasuredRow) -> list[str]:
    return [f"baseline: {row.label}, {row.output_j:g} J/token ({row.source})"]


ESTIMATOR = Estimator(
    id="scale",
    title="scaling from one baseline",
    formula="E_b * (N_t/N_b) * k^log2(N_t/N_b) * mu * links * (BW_b/BW_t) * (TDP_t/TDP_b) * eta",
    source="an earlier toolkit's note on energy estimation bounds",
    boundary="as the baseline's: gpu",
    assumes=("the batch of the baseline", "k 0.90-1.10, mu 0.75-1.8, a 0.10-0.15, eta 0.70-1.15"),
    leaves_out=("batch and context of the case",),
    needs=("batch",),
    compute=_compute,
)
