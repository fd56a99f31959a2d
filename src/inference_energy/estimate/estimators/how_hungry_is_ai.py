"""How Hungry is AI: a request's time at a share of a node's power.

    E_request = (T_out / TPS + TTFT) * [P_gpu * G * D_gpu / (N * B) + P_non * G * 0.5 / (N * B)] * PUE

TPS is the speed that one request sees, throughput / B; G the GPUs of the model, N = 8 those of a node. DGX H100:
P_gpu = 10.2 kW, P_non = 1.6 kW, PUE 1.12; D_gpu, the share of power that a GPU is taken to draw, 5.5 to 7.5 %.

Source: Jegham et al. 2025, arXiv 2505.09598, sections on energy and its example of a large model on 8 GPUs, from which
D_gpu is taken for all models here.

Limits: D_gpu is derived from the utilisation of such nodes at batch 8; at larger batches the division by B lets the
power of a GPU fall towards nothing, so the figure is far too low there. The node's largest power is used as that of its
GPUs. Without TTFT the wait for the first token is left out. Node figures are known for H100 and H200 only.
"""

import numpy as np

from inference_energy.estimate.batch import Cases
from inference_energy.estimate.estimator import Basis, Estimator, Problem, Values

NODE_GPUS = 8
GPU_W = 10_200.0
OTHER_W = 1_600.0
PUE = 1.12
D_GPU = (0.055, 0.075)
D_OTHER = 0.5
KNOWN = ("H100-SXM", "H200")


def _compute(cases: Cases, basis: Basis) -> Values:
    per_token_s = cases.batch / cases.throughput
    waited = ~np.isnan(cases.ttft_s)
    each_s = per_token_s + np.where(waited, np.nan_to_num(cases.ttft_s) / cases.output_tokens, 0.0)
    share = cases.gpus / (NODE_GPUS * cases.batch)
    low_gpu, high_gpu = (each_s * GPU_W * share * part for part in D_GPU)
    other = each_s * OTHER_W * share * D_OTHER
    gpu = (low_gpu + high_gpu) / 2
    known = cases.of_gpu(lambda one: float(one.name in KNOWN)) == 1
    return Values.points(
        (gpu + other) * PUE,
        (low_gpu + other) * PUE,
        (high_gpu + other) * PUE,
        gpu=gpu,
        beside={"gpu_energy_per_output_token_j": gpu},
        notes=lambda place: [] if waited[place] else ["no time to first token is given (--ttft): it is left out"],
    ).without([Problem(~known, f"the power of a node is known for {' and '.join(KNOWN)} only")])


ESTIMATOR = Estimator(
    id="hungry",
    title="How Hungry is AI",
    formula="(1/TPS + TTFT/T_out) * (10.2 kW * G * D_gpu + 1.6 kW * G * 0.5) / (8 B) * 1.12",
    source="Jegham et al. 2025, arXiv 2505.09598",
    boundary="gpu and the rest of the node, PUE 1.12",
    assumes=("a GPU draws 5.5 to 7.5 % of its share of 10.2 kW, divided by the batch", "a DGX H100 or H200"),
    leaves_out=("that power does not fall with the batch",),
    needs=("throughput", "batch", "output_tokens"),
    compute=_compute,
)
