"""Arrival times of a phase, drawn beforehand as offsets from its start."""

import numpy as np
from numpy.typing import NDArray

from inference_energy.config.load import Arrival, ClosedArrival, PoissonArrival


def offsets_ns(arrival: Arrival, duration_s: float, random: np.random.Generator) -> NDArray[np.int64] | None:
    """Offsets in ns, sorted, all below the duration; None for a closed loop, where the server's pace decides.

    Poisson: gaps are independent and exponential with mean 1/rate, and are summed without any rescaling, so the
    number of arrivals is Poisson-distributed too. Constant: the first arrival is half a gap after the start.
    """
    if isinstance(arrival, ClosedArrival):
        return None
    times_s: NDArray[np.float64]
    if isinstance(arrival, PoissonArrival):
        blocks: list[NDArray[np.float64]] = []
        last_s = 0.0
        while last_s < duration_s:
            gaps_s = random.exponential(1 / arrival.rate_qps, max(16, int(arrival.rate_qps * duration_s)))
            blocks.append(np.add(last_s, np.cumsum(gaps_s), dtype=np.float64))
            last_s = float(blocks[-1][-1])
        times_s = np.concatenate(blocks)
    else:
        count = int(np.ceil(duration_s * arrival.rate_qps))
        times_s = np.asarray((np.arange(count) + 0.5) / arrival.rate_qps, dtype=np.float64)
    return np.round(times_s[times_s < duration_s] * 1e9).astype(np.int64)
