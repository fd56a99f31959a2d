"""The prompts of an earlier run, from its prompts.parquet."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from inference_energy.contracts.schedule import PROMPTS
from inference_energy.errors import InputError
from inference_energy.plan.prompts.source import CONTENTS, Made, batches


class PlannedSource:
    """Prompts that a replayed schedule names by their ids."""

    def __init__(self, path: str, key: str) -> None:
        """Read the file.

        Raises:
            InputError: it cannot be read or lacks a column.
        """
        try:
            self._table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{key}: {path} cannot be read as Parquet: {error}") from error
        lacking = [name for name in PROMPTS.names if name not in self._table.column_names]
        if lacking:
            raise InputError(
                f"{key}: {path} lacks the column {', '.join(lacking)}; found: {', '.join(self._table.column_names)}"
            )
        self.identity = ("planned", path)
        self._where = f"{key}: {path}"

    @property
    def size(self) -> int:
        """See `Contents`."""
        return int(self._table.num_rows)

    def chosen(self, prompt_id: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which prompts have these ids.

        Raises:
            InputError: the file lacks one.
        """
        ids = self._table["prompt_id"].to_numpy()
        order = np.argsort(ids, kind="stable")
        place = np.minimum(np.searchsorted(ids[order], prompt_id), max(0, len(ids) - 1))
        found = ids[order][place] == prompt_id if len(ids) else np.zeros(len(prompt_id), dtype=bool)
        if not found.all():
            raise InputError(f"{self._where} lacks prompt {int(prompt_id[~found][0])}; is it that of this schedule?")
        return np.asarray(order[place])

    def contents(self, prompts: NDArray[np.int64], made: Made) -> Iterator[pa.Table]:
        """See `Contents`."""
        for part in batches(prompts):
            yield self._table.select(CONTENTS.names).take(pa.array(part)).cast(CONTENTS)
