"""Random words, for endpoints whose vocabulary is not known."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_TEXT = (
    "time year way day man life child world school state group hand part place case week work night point home water "
    "room area money story fact month book eye job word side head house friend hour game line law car"
)
WORDS = tuple(_TEXT.split())
"""Common English nouns, about one token each in usual vocabularies."""

_ARRAY = pa.array(WORDS)


def texts(words: NDArray[np.integer[Any]], lengths: NDArray[np.int64]) -> pa.Array:
    """Texts of so many words each, with blanks between.

    Args:
        words: indices into `WORDS` of all texts, one after another.
        lengths: words in each text.
    """
    starts = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(starts, _ARRAY.take(pa.array(words))), " ")
