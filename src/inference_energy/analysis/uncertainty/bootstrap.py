"""Standard errors of means and ratios over a window, by the circular block bootstrap.

Readings of a served load hang together over some seconds, so single readings must not be resampled: whole blocks are.
The block's length is that of Politis and White for the figure's own linearised series; with n bins in blocks of L, the
standard error has n / L - 1 degrees of freedom, and is raised by sqrt(n / (n - L)) for what so few blocks cannot show.
Sources: Politis and Romano, in Exploring the Limits of Bootstrap (1992); Politis and White, Econometric Reviews 23
(2004), corrected by Patton, Politis and White, Econometric Reviews 28 (2009).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from inference_energy.analysis.trapezoid import Values

REPEATS = 499
MIN_BINS = 8
MIN_BLOCKS = 6
SEED = 20260701


@dataclass(frozen=True)
class StandardError:
    """A standard error, its degrees of freedom, and the block's length in bins that it was found with."""

    value: float
    dof: float
    block: int


def ratio_error(numerator: Values, denominator: Values, *, longest: bool = False) -> StandardError | None:
    """Standard error of sum(numerator) / sum(denominator); None for fewer than `MIN_BINS` bins or nothing to divide by.

    Args:
        numerator: one sum a bin, such as energy [J]; shape (bins,).
        denominator: one a bin, such as tokens, or the bins' lengths for a mean rate.
        longest: take the longest blocks that there may be, for a test that must not cry wolf.
    """
    count = len(numerator)
    total = float(denominator.sum())
    if count < MIN_BINS or total <= 0:
        return None
    ratio = float(numerator.sum()) / total
    # The ratio's error is, to first order, the mean of this series over the denominator's mean.
    linear = numerator - ratio * denominator
    if float(np.ptp(linear)) <= 1e-12 * max(float(np.abs(numerator).max()), 1e-300):
        return StandardError(0.0, math.inf, 1)
    block = max(count // MIN_BLOCKS, 1) if longest else block_length(linear)
    indices = resamples(count, block)
    # Resampled linearised, not as a ratio: where most bins hold nothing to divide by, a resample may hold none at all.
    means = linear[indices].sum(axis=1) / total
    spread = float(np.std(means, ddof=1)) * math.sqrt(count / (count - block))
    return StandardError(spread, max(count / block - 1.0, 1.0), block)


def block_length(series: Values) -> int:
    """Length of blocks in bins, at most so long that `MIN_BLOCKS` fit."""
    from arch.bootstrap import optimal_block_length  # here, because it takes a second to import

    # A series that is constant over a part has no correlation there, which is no fault.
    with np.errstate(divide="ignore", invalid="ignore"):
        found = float(optimal_block_length(series)["circular"].iloc[0])
    longest = max(len(series) // MIN_BLOCKS, 1)
    # The optimal order of magnitude, n^(1/3), is the least: the estimate is often too short for so few bins.
    least = len(series) ** (1 / 3)
    return int(np.clip(math.ceil(max(found, least) if math.isfinite(found) else least), 1, longest))


@lru_cache(maxsize=128)
def resamples(count: int, block: int, repeats: int = REPEATS, stream: int = 0) -> NDArray[np.intp]:
    """Bins of each resample, shape (repeats, count); the same for the same arguments, so figures can be recomputed."""
    from arch.bootstrap import CircularBlockBootstrap

    random = np.random.default_rng([SEED, stream])
    draws = CircularBlockBootstrap(block, np.arange(count), seed=random)
    return np.array([data[0][0] for data in draws.bootstrap(repeats)], dtype=np.intp)
