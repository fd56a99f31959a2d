"""Nameplate times 0.7: the GPUs draw 70 % of their TDP.

    E = 0.7 * TDP * n_gpu / throughput        range: 0.33 to 0.99 of TDP

Source: Epoch AI's figure of 70 % for the power of GPUs in use ("How much energy does ChatGPT use?", 2025); the range
was measured on H100s serving LLMs: power over TDP from 0.33 to 0.99, median 0.74.

Limits: only as good as the assumed share of TDP; needs the measured throughput.
"""

from inference_energy.estimate.batch import Cases
from inference_energy.estimate.estimator import Basis, Estimator, Values

SHARE = 0.7
LOWEST, HIGHEST = 0.33, 0.99


def _compute(cases: Cases, basis: Basis) -> Values:
    nameplate = cases.tdp_w * cases.gpus / cases.throughput
    return Values.points(SHARE * nameplate, LOWEST * nameplate, HIGHEST * nameplate)


ESTIMATOR = Estimator(
    id="tdp70",
    title="nameplate x 0.7",
    formula="0.7 * TDP * n_gpu / throughput; range 0.33 to 0.99 of TDP",
    source="Epoch AI, How much energy does ChatGPT use (2025); range: H100s serving LLMs",
    boundary="gpu",
    assumes=("every GPU draws 70 % of its TDP; the range is that of H100s",),
    leaves_out=("CPU, memory, fans, PUE",),
    needs=("throughput",),
    compute=_compute,
)
