"""How long a call takes: lognormal, from its median and its 99th percentile.

t = median * exp(sigma z),    sigma = ln(p99 / median) / 2.326...
"""

import math

import numpy as np

from inference_energy.bench.sensors.draws import Draws
from inference_energy.bench.truth.segments import Floats, Integers

P99_Z = 2.3263478740408408


class Latency:
    """The latencies of one kind of call.

    Args:
        median_s, p99_s: a 99th percentile below the median is taken as the median: no spread.
        draws: gives each call its own.
    """

    def __init__(self, median_s: float, p99_s: float, draws: Draws) -> None:
        self._median_s = median_s
        self._sigma = math.log(max(p99_s / median_s, 1.0)) / P99_Z if median_s > 0 else 0.0
        self._draws = draws

    def seconds(self, calls: Integers) -> Floats:
        """The time each call takes.

        Args:
            calls: a whole number that names each call, such as when it is made in ns, shape (n,).
        """
        return self._median_s * np.exp(self._sigma * self._draws.normal(calls))
