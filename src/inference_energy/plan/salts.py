"""Which requests send again what was sent before in the session, so that a server could answer them from its cache."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from inference_energy.plan.nulls import NULL, filled
from inference_energy.plan.requests import CellRequests

_DIGEST = 8
"""Bytes; at a million prompts two different ones are taken for the same with a probability of 3e-8."""


def repeats(cells: Sequence[CellRequests], prompts: Iterable[pa.RecordBatch]) -> tuple[NDArray[np.bool_], int]:
    """Whether each request's content, or its shared beginning, was in a request before it.

    The order is that of the cells and within them that of the rows. A conversation's later turns hold what was said
    before, so they repeat it.

    Args:
        cells: the session's requests.
        prompts: their contents, in the order of their ids.

    Returns:
        One value a request over all cells, and the number of prompts.
    """
    contents, groups = [], []
    for batch in prompts:
        contents.append(_digests(batch))
        groups.append(filled(batch["group"]))
    content = np.concatenate([np.empty(0, np.uint64), *contents])
    group = np.concatenate([np.empty(0, np.int64), *groups])
    asked = np.concatenate([np.empty(0, np.int64), *(cell.prompt_id for cell in cells)])
    if len(asked) and asked.max() >= len(content):
        return np.zeros(len(asked), dtype=bool), len(content)
    turn = np.concatenate([np.empty(0, np.int64), *(cell.turn for cell in cells)])
    workload = np.repeat([cell.cell.workload_name for cell in cells], [len(cell.prompt_id) for cell in cells])
    same = pd.Series(content[asked]).duplicated().to_numpy()
    begins = pd.DataFrame({"workload": workload, "group": group[asked]}).duplicated().to_numpy()
    return same | (begins & (group[asked] != NULL)) | (turn > 0), len(content)


def _digests(batch: pa.RecordBatch) -> NDArray[np.uint64]:
    """A digest of the bytes of each prompt: its token ids, its text, or its messages."""
    found = np.zeros(batch.num_rows, dtype=np.uint64)
    for name in ("token_ids", "text", "messages"):
        column = batch[name]
        rows = np.flatnonzero(~column.is_null().to_numpy(zero_copy_only=False))
        if not len(rows):
            continue
        width = 4 if pa.types.is_list(column.type) else 1
        offsets = np.frombuffer(column.buffers()[1], dtype="<i4")[column.offset : column.offset + batch.num_rows + 1]
        data = memoryview(column.values.buffers()[1] if width == 4 else column.buffers()[2])
        begin = column.values.offset if width == 4 else 0
        starts, ends = (((edge[rows] + np.int64(begin)) * width).tolist() for edge in (offsets[:-1], offsets[1:]))
        digests = [
            hashlib.blake2b(data[start:end], digest_size=_DIGEST).digest()
            for start, end in zip(starts, ends, strict=True)
        ]
        found[rows] = np.frombuffer(b"".join(digests), dtype="<u8")
    return found
