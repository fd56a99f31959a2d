"""EcoLogits 0.11: a curve over active parameters, with a fixed batch and a number of GPUs by its own rule.

    E_gpu [Wh/token] = 1.1665e-6 * exp(-0.011206 * B) * P_active [billion] + 4.0529e-5
    n_gpu = 2^ceil(log2(ceil(1.2 * P_total * bits / 8 / 80 GB)))
    E = n_gpu * E_gpu
    beside: latency/token = 6.785e-4 * P_active + 3.119e-4 * B + 0.01947 s; server = latency * 1.2 kW * (n_gpu / 8) / B;
    embodied = (273 kg * n_gpu + 5700 kg * n_gpu / 8) * latency / 3 years / B

with B = 64 and 16 bit, whatever the case. Source: EcoLogits (https://ecologits.ai, MPL-2.0), `impacts/llm.py`, whose
curve is fitted to ML.ENERGY's figures on H100.

Limits: the curve is fitted over one GPU's energy and multiplied by the number of GPUs, so it jumps where a model needs
twice as many. The case's batch, GPU, precision and prompt have no effect.
"""

import numpy as np
from numpy.typing import ArrayLike

from inference_energy.estimate.batch import Cases
from inference_energy.estimate.estimator import Basis, Estimator, Values
from inference_energy.estimate.shapes.shape import Array

BATCH = 64.0
BITS = 16.0
GPU_MEMORY_GB = 80.0
SERVER_GPUS = 8
SERVER_KW = 1.2
EMBODIED_GPU_KG = 273.0
EMBODIED_SERVER_KG = 5700.0
LIFETIME_S = 3 * 365 * 86400
J_PER_WH = 3600.0


def gpu_energy_j(active_billion: ArrayLike, batch: ArrayLike) -> Array:
    """Return J per output token of one GPU."""
    active, requests = np.asarray(active_billion, dtype=np.float64), np.asarray(batch, dtype=np.float64)
    return np.asarray((1.1665e-6 * np.exp(-0.011206 * requests) * active + 4.0529e-5) * J_PER_WH)


def gpu_count(total_billion: ArrayLike) -> Array:
    """Return the number of 80 GB GPUs for the weights and a fifth more, as a power of two."""
    needed_gb = 1.2 * np.asarray(total_billion, dtype=np.float64) * BITS / 8
    return np.asarray(2.0 ** np.ceil(np.log2(np.ceil(needed_gb / GPU_MEMORY_GB))))


def latency_s(active_billion: ArrayLike, batch: float = BATCH) -> Array:
    """Return the seconds per output token."""
    return np.asarray(6.785e-4 * np.asarray(active_billion, dtype=np.float64) + 3.119e-4 * batch + 0.01947)


def _compute(cases: Cases, basis: Basis) -> Values:
    active = cases.active / 1e9
    gpus = gpu_count(cases.of_model(lambda shape: shape.parameters) / 1e9)
    token_s = latency_s(active)
    embodied_kg = EMBODIED_GPU_KG * gpus + EMBODIED_SERVER_KG * gpus / SERVER_GPUS
    return Values.points(
        gpus * gpu_energy_j(active, BATCH),
        beside={
            "server_energy_per_output_token_j": token_s * SERVER_KW * 1e3 * gpus / SERVER_GPUS / BATCH,
            "embodied_carbon_per_output_token_gco2e": embodied_kg * 1e3 * token_s / LIFETIME_S / BATCH,
        },
        notes=lambda case: [f"{gpus[case]:g} GPU(s) of 80 GB by its own rule"],
    )


ESTIMATOR = Estimator(
    id="ecologits",
    title="EcoLogits 0.11",
    formula="n_gpu * (1.1665e-6 exp(-0.011206 * 64) P_active + 4.0529e-5) Wh",
    source="EcoLogits (https://ecologits.ai, MPL-2.0), impacts/llm.py",
    boundary="gpu",
    assumes=("batch 64 and 16 bit, whatever is served", "H100s of 80 GB, as many as its rule says"),
    leaves_out=("the batch, the GPU and the precision of the case", "the prompt", "PUE; the server is given beside it"),
    needs=(),
    compute=_compute,
)
