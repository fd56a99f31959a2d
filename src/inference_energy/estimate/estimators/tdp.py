"""Nameplate: the GPUs draw their TDP all the time.

    E = TDP * n_gpu / throughput

Source: the product of hours and TDP in ML CO2 Impact (Lacoste et al. 2019, arXiv 1910.09700) and Green Algorithms
(Lannelongue et al. 2021, doi 10.1002/advs.202100707). Green Algorithms also has E = t * (n_c * P_c * u_c + n_m * 0.3725
W/GB) * PUE * PSF; memory, PUE and PSF are left out here, so that the estimate can be compared with measured GPU energy.

Limits: an upper bound for all but the heaviest load; on H100 the power while serving was 0.33 to 0.99 of TDP. The
method needs a measured throughput, and so a run, or somebody else's.
"""

from inference_energy.estimate.batch import Cases
from inference_energy.estimate.estimator import Basis, Estimator, Values


def _compute(cases: Cases, basis: Basis) -> Values:
    return Values.points(cases.tdp_w * cases.gpus / cases.throughput)


ESTIMATOR = Estimator(
    id="tdp",
    title="nameplate",
    formula="TDP * n_gpu / throughput",
    source="ML CO2 Impact (arXiv 1910.09700); Green Algorithms (doi 10.1002/advs.202100707)",
    boundary="gpu",
    assumes=("every GPU draws its TDP all the while",),
    leaves_out=("CPU, memory, fans, PUE", "that power falls with load"),
    needs=("throughput",),
    compute=_compute,
)
