"""Times drawn from a distribution."""

import numpy as np
from numpy.typing import NDArray

from inference_energy.config.load.times import ExponentialTime, FixedTime, LognormalTime, Time, UniformTime
from inference_energy.plan.lengths import lognormal


def times_ns(config: Time, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Times in ns, none negative."""
    match config:
        case FixedTime():
            times_s = np.full(count, config.time_s)
        case ExponentialTime():
            times_s = random.exponential(config.mean_s, count)
        case LognormalTime():
            times_s = lognormal(config.mean_s, config.std_s, count, random)
        case UniformTime():
            times_s = random.uniform(config.minimum_s, config.maximum_s, count)
    return np.rint(times_s * 1e9).astype(np.int64)
