"""Azure LLM inference traces: CSV with TIMESTAMP, ContextTokens, GeneratedTokens.

Those of 2023 (Patel et al., Splitwise, ISCA 2024) have times such as `2023-11-16 18:17:03.9799600`, those of 2024
(Stojkovic et al., DynamoLLM, HPCA 2025) the same with an offset of the time zone. The latter hold a week and tens of
millions of rows, so reading ends where the cell does.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

from inference_energy.errors import InputError
from inference_energy.plan.arrivals.traces.gather import gather
from inference_energy.plan.arrivals.traces.trace import Rows
from inference_energy.plan.columns import read_columns

COLUMNS = {"TIMESTAMP": pa.string(), "ContextTokens": pa.float64(), "GeneratedTokens": pa.float64()}


def read(path: str, until_s: float, key: str) -> Rows:
    """The rows up to a time after the first.

    Raises:
        InputError: the file is not such a trace.
    """
    return gather(_in_seconds(path, key), until_s)


def _in_seconds(path: str, key: str) -> Iterator[tuple[pa.Array, pa.Array, pa.Array]]:
    """The columns with times since the first row: seconds since 1970 would be good to 0.2 us only."""
    origin_ns = None
    for batch in read_columns(path, COLUMNS, key):
        times, prompt_tokens, output_tokens = batch.columns
        try:
            parsed = pd.to_datetime(times.to_pandas(), utc=True, format="ISO8601")
        except ValueError as error:
            raise InputError(f"{key}: {path}: TIMESTAMP is no date and time: {error}") from error
        known = parsed.notna().to_numpy()
        times_ns = parsed.to_numpy(dtype="datetime64[ns]").astype(np.int64)
        if origin_ns is None and known.any():
            origin_ns = times_ns[known][0]
        since_s = (times_ns - (origin_ns or 0)) / 1e9
        yield pa.array(np.where(known, since_s, np.nan)), prompt_tokens, output_tokens
