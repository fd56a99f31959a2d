"""Arrival processes of rate 1, from which all others are made by rescaling time.

- Poisson: independent gaps, exponential with mean 1.
- Gamma: independent gaps from a gamma distribution of shape k = `burstiness` and mean 1, so with a coefficient of
  variation of 1/sqrt(k); the convention is that of `vllm bench serve`. k = 1 is Poisson, k below 1 comes in bursts.
- Constant: arrivals at k + 1/2.

Gaps are summed as they are drawn. Nothing is rescaled to a wanted count, which would make the count fixed and the gaps
dependent. The gamma process is the equilibrium one: it has gone on for ever when the cell begins, so that the expected
count is the integral of the rate from the first moment on. The wait for its first arrival has the density
(1 - F(x))/mean (Cox, Renewal Theory, 1962, section 5.2), drawn as a uniform part of a gap of shape k + 1, the
length-biased gap. The exponential distribution is its own equilibrium.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import Kind

_BLOCK = 1 << 14
"""Gaps drawn at a time; always as many, so that a longer window begins with the arrivals of a shorter one."""


def unit_times(kind: Kind, burstiness: float, until: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Arrival times of a process of rate 1, sorted, from 0 and below `until`.

    Args:
        kind: poisson, gamma or constant.
        burstiness: shape of the gamma distribution; not looked at otherwise.
        until: the time up to which they are wanted: the expected number.
        random: where the draws come from.
    """
    if kind == "constant":
        return np.arange(max(0, int(np.ceil(until - 0.5))), dtype=np.float64) + 0.5
    if kind == "poisson" or burstiness == 1.0:
        return _renewal(lambda: random.standard_exponential(_BLOCK), 0.0, until)
    # The length-biased gamma distribution of shape k and scale 1/k has shape k + 1 and the same scale.
    first = random.random() * random.standard_gamma(burstiness + 1.0) / burstiness
    later = _renewal(lambda: random.standard_gamma(burstiness, _BLOCK) / burstiness, first, until)
    return np.concatenate(([first], later)) if first < until else later


def _renewal(draw: Callable[[], NDArray[np.float64]], last: float, until: float) -> NDArray[np.float64]:
    blocks: list[NDArray[np.float64]] = []
    while last < until:
        blocks.append(last + np.cumsum(draw()))
        last = float(blocks[-1][-1])
    if not blocks:
        return np.empty(0)
    times = np.concatenate(blocks)
    return times[: np.searchsorted(times, until)]
