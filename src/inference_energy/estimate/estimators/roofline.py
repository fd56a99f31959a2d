"""Data-sheet roofline: a decode step takes as long as its bytes or its FLOPs, whichever is longer.

    t_step = max(W / (0.6 * bandwidth), 2 * N * B / (0.5 * peak)) / n_gpu
    E = t_step / B * 0.7 * TDP * n_gpu

W are the bytes of weights that a step reads, with the experts that B tokens are expected to touch. The GPUs share
reading and computing evenly, so their number cancels.

Prompts, estimated separately: 2 N FLOPs per token and 4 * layers * heads * d_head * T_in^2 / 2 of attention, at 0.4 to
0.6 of the peak and 70 % of TDP. Source: first principles; the shares 0.6, 0.5 and 0.7 are round numbers, not fitted.

Limits: no key-value cache, no links between GPUs, no gaps between steps, and 70 % of TDP whatever the load.
"""

import numpy as np

from inference_energy.estimate.batch import Cases
from inference_energy.estimate.estimator import Basis, Estimator, Values
from inference_energy.estimate.shapes.shape import Array

BANDWIDTH_SHARE = 0.6
PEAK_SHARE = 0.5
PREFILL_PEAK_SHARES = (0.4, 0.6)
POWER_SHARE = 0.7


def prefill_j(cases: Cases) -> tuple[Array, Array]:
    """Return the lowest and highest energy of reading one prompt [J]; NaN if the prompt's length is not given."""
    low, high = (
        cases.prefill_flops / (share * cases.peak_flops) * POWER_SHARE * cases.tdp_w
        for share in reversed(PREFILL_PEAK_SHARES)
    )
    return low, high


def _compute(cases: Cases, basis: Basis) -> Values:
    reading_s = cases.step_bytes / (BANDWIDTH_SHARE * cases.bandwidth)
    computing_s = 2 * cases.active * cases.batch / (PEAK_SHARE * cases.peak_flops)
    return Values.points(np.maximum(reading_s, computing_s) / cases.batch * POWER_SHARE * cases.tdp_w)


ESTIMATOR = Estimator(
    id="roofline",
    title="data-sheet roofline",
    formula="max(W / (0.6 * bandwidth), 2 N B / (0.5 * peak)) / B * 0.7 * TDP",
    source="first principles",
    boundary="gpu",
    assumes=("60 % of bandwidth or 50 % of the dense peak", "70 % of TDP", "GPUs share a step's work evenly"),
    leaves_out=("the prompt (given apart)", "the key-value cache", "links between GPUs, gaps between steps"),
    needs=("batch",),
    compute=_compute,
)
