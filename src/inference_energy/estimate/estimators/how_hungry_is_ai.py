"""How Hungry is AI: a request's time at a share of a node's power.

    E_request = (T_out / TPS + TTFT) * [P_gpu * G * D_gpu / (N * B) + P_non * G * 0.5 / (N * B)] * PUE

TPS is the speed of one request, throughput / B; G is the model's number of GPUs, N = 8 a node's. DGX H100: P_gpu = 10.2
kW, P_non = 1.6 kW, PUE 1.12; D_gpu, the assumed share of its power that a GPU draws, is 5.5 to 7.5 %.

Source: Jegham et al. 2025, arXiv 2505.09598, sections on energy. D_gpu of its example, a large model on 8 GPUs, is used
for all models here.

Limits: D_gpu is derived from the utilisation of such nodes at batch 8; at larger batches the division by B reduces a
GPU's power towards zero, so the estimate is far too low there. The largest power of the whole node stands for the power
of its GPUs. Without TTFT the wait for the first token is left out. Node figures are known for H100 and H200 only.
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
NODE_KNOWN = ("H100-SXM", "H200")


def _compute(cases: Cases, basis: Basis) -> Values:
    decode_s = cases.batch / cases.throughput
    has_ttft = ~np.isnan(cases.ttft_s)
    token_s = decode_s + np.where(has_ttft, np.nan_to_num(cases.ttft_s) / cases.output_tokens, 0.0)
    share = cases.gpus / (NODE_GPUS * cases.batch)
    low_gpu, high_gpu = (token_s * GPU_W * share * drawn for drawn in D_GPU)
    other = token_s * OTHER_W * share * D_OTHER
    gpu = (low_gpu + high_gpu) / 2
    node_known = cases.of_gpu(lambda gpu: float(gpu.name in NODE_KNOWN)) == 1
    return Values.points(
        (gpu + other) * PUE,
        (low_gpu + other) * PUE,
        (high_gpu + other) * PUE,
        gpu=gpu,
        beside={"gpu_energy_per_output_token_j": gpu},
        notes=lambda case: [] if has_ttft[case] else ["no time to first token is given ({ttft_s}): it is left out"],
    ).without([Problem(~node_known, f"the power of a node is known for {' and '.join(NODE_KNOWN)} only")])


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
