"""Random token ids, and rows of them."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inference_energy.errors import InputError

FIRST_ORDINARY_TOKEN = 1000
"""Token ids below this are often control tokens; they are not drawn when the vocabulary is large enough."""


def id_range(vocabulary: int | None, key: str) -> tuple[int, int]:
    """The lowest id that is drawn, and the one after the highest.

    Raises:
        InputError: the vocabulary is not known.
    """
    if vocabulary is None:
        raise InputError(f"{key}.form: the model's vocabulary is not known; write form: words")
    return (FIRST_ORDINARY_TOKEN if vocabulary > 2 * FIRST_ORDINARY_TOKEN else 0), vocabulary


def id_lists(ids: NDArray[np.integer[Any]], lengths: NDArray[np.int64]) -> pa.Array:
    """Lists of ids of these lengths, from all ids one after another."""
    starts = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
    return pa.ListArray.from_arrays(starts, pa.array(ids, pa.int32()))


def with_prefixes(
    own: NDArray[np.integer[Any]],
    lengths: NDArray[np.int64],
    group: NDArray[np.int64],
    prefixes: NDArray[np.int64],
) -> tuple[NDArray[np.integer[Any]], NDArray[np.int64]]:
    """Put shared beginnings before rows of values.

    Args:
        own: the rows' own values, one after another.
        lengths: of the rows.
        group: for each row which beginning it has; negative: none.
        prefixes: one beginning a row, all of one length.

    Returns:
        The values of all rows with their beginnings, and their lengths.
    """
    before = np.where(group >= 0, prefixes.shape[1], 0)
    whole = before + lengths
    row = np.repeat(np.arange(len(lengths)), whole)
    place = np.arange(int(whole.sum())) - np.repeat(np.cumsum(whole) - whole, whole)
    shared = place < before[row]
    values = np.empty(len(row), dtype=own.dtype)
    values[~shared] = own
    values[shared] = prefixes[group[row[shared]], place[shared]]
    return values, whole
