"""Proportional attribution: each request is charged its share of the window's tokens.

    E_i = E_window * w_i / sum(w)

with w_i the request's completion tokens inside the window (policy `completion_tokens`) or all its tokens inside
(`total_tokens`). The receipts sum to the window's energy.
"""

import numpy as np
from numpy.typing import NDArray


def proportional(energy_j: float, weights: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Energy of each request in J; None where all weights are zero, because then nobody can be charged.

    Args:
        energy_j: the window's energy.
        weights: one count a request, none negative.

    Raises:
        ValueError: a negative weight.
    """
    if np.any(weights < 0):
        raise ValueError("weights are counts and cannot be negative")
    total = int(weights.sum())
    if total == 0:
        return None
    shares: NDArray[np.float64] = energy_j * (weights.astype(np.float64) / total)
    return shares
