"""Whole numbers that may be missing: `NULL` in numpy, null in Arrow."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

NULL = -1
"""No time, length or id of a plan is negative."""


def filled(column: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """A column of whole numbers, `NULL` where it has none."""
    values: NDArray[np.int64] = column.fill_null(NULL).to_numpy(zero_copy_only=False).astype(np.int64)
    return values


def column(values: NDArray[np.int64]) -> pa.Array:
    """The Arrow column, null where there is `NULL`."""
    return pa.array(values, type=pa.int64(), mask=values == NULL)
