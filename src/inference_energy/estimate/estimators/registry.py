"""All estimators, in the order in which they are shown: from the plainest to the one that knows most."""

from inference_energy.estimate.estimator import Estimator
from inference_energy.estimate.estimators import (
    ecologits,
    energy_roofline,
    flops,
    how_hungry_is_ai,
    lookup,
    roofline,
    scale,
    tdp,
    tdp70,
)

ESTIMATORS: tuple[Estimator, ...] = (
    tdp.ESTIMATOR,
    tdp70.ESTIMATOR,
    flops.ESTIMATOR,
    roofline.ESTIMATOR,
    ecologits.ESTIMATOR,
    how_hungry_is_ai.ESTIMATOR,
    scale.ESTIMATOR,
    lookup.ESTIMATOR,
    energy_roofline.ESTIMATOR,
)


def estimator_of(name: str) -> Estimator:
    """The estimator with this id."""
    return next(one for one in ESTIMATORS if one.id == name)
