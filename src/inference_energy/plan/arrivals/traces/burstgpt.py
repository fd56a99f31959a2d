"""BurstGPT traces (Wang et al., arXiv 2401.17644): CSV with Timestamp [s], Request tokens, Response tokens.

A response of 0 tokens is a request that failed; it is left out where the trace's lengths are used.
"""

import pyarrow as pa

from inference_energy.plan.arrivals.traces.gather import gather
from inference_energy.plan.arrivals.traces.trace import Rows
from inference_energy.plan.columns import read_columns

COLUMNS = {"Timestamp": pa.float64(), "Request tokens": pa.float64(), "Response tokens": pa.float64()}


def read(path: str, until_s: float, key: str) -> Rows:
    """The rows up to a time after the first.

    Raises:
        InputError: the file is not such a trace.
    """
    return gather((tuple(batch.columns) for batch in read_columns(path, COLUMNS, key)), until_s)
