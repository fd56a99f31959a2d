"""FLOP count: the time for a token's FLOPs at a tenth of the peak, times a GPU's share of its node's power.

    t = 2 * N * T_out / (0.10 * peak);  E = t * P_node * 0.7;  P_node = 1275 W for an H100

Source: Epoch AI, "How much energy does ChatGPT use?" (2025): 10 % utilisation, an eighth of a DGX H100's 10.2 kW, and
70 % of it on average. Its PUE of 1.2 is left out here. For other GPUs P_node is an eighth of the largest power of the
vendor's own 8-GPU system; a GPU without one has no estimate.

Limits: the batch enters only through the 10 %, so the estimate is the same from batch 1 to 512, while the measured
energy falls seven-fold. Prompts are not counted. N are the active parameters.
"""

import numpy as np

from inference_energy.estimate.batch import Cases
from inference_energy.estimate.estimator import Basis, Estimator, Problem, Values

UTILISATION = 0.10
POWER_SHARE = 0.7


def _compute(cases: Cases, basis: Basis) -> Values:
    node_w = cases.of_gpu(lambda gpu: gpu.node_w)
    seconds = 2 * cases.active / (UTILISATION * cases.peak_flops)
    unknown = Problem(np.isnan(node_w), "a GPU's share of its node's power is not known for this GPU")
    return Values.points(seconds * node_w * POWER_SHARE).without([unknown])


ESTIMATOR = Estimator(
    id="flops",
    title="FLOP count",
    formula="2 N / (0.10 * peak) * P_node * 0.7",
    source="Epoch AI, How much energy does ChatGPT use (2025)",
    boundary="gpu and its share of the node",
    assumes=("10 % of the dense peak, whatever the batch", "70 % of the node's largest power, an eighth for each GPU"),
    leaves_out=("the batch", "the prompt", "PUE"),
    needs=(),
    compute=_compute,
)
