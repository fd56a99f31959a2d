"""A window cut into bins of about a second, for what must be known of its course: fluctuation, not only the sum."""

import numpy as np

from inference_energy.analysis.trapezoid import Times

BIN_S = 1.0


def bin_edges(start_ns: int, end_ns: int) -> Times:
    """Edges of equal bins of about `BIN_S`, one more than there are bins; at least one bin."""
    count = max(round((end_ns - start_ns) / 1e9 / BIN_S), 1)
    return np.asarray(np.linspace(start_ns, end_ns, count + 1).round(), dtype=np.int64)
