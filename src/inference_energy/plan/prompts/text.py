"""A text file, one prompt a line."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inference_energy.config.load.prompts import FilePrompts
from inference_energy.errors import InputError
from inference_energy.plan.arrivals.starts import Starts
from inference_energy.plan.nulls import NULL
from inference_energy.plan.prompts.source import Choice, Made, batches, contents_table, in_rounds


class TextSource:
    """Lines of a file, without the empty ones and without blanks around them."""

    def __init__(self, config: FilePrompts, key: str, random: np.random.Generator) -> None:
        """Read the file.

        Raises:
            InputError: it cannot be read or holds no prompt.
        """
        try:
            lines = [line.strip() for line in Path(config.path).read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{key}.path: {config.path} cannot be read: {error}") from error
        if not any(lines):
            raise InputError(f"{key}.path: {config.path} holds no prompt; write one a line")
        self._lines = pa.array([line for line in lines if line], pa.large_string())
        self._config = config
        self._random = random

    @property
    def identity(self) -> tuple[str, ...]:
        """See `Contents`."""
        return ("file", self._config.path)

    @property
    def size(self) -> int:
        """See `Contents`."""
        return len(self._lines)

    def choose(self, starts: Starts) -> Choice:
        """See `Source`."""
        none = np.full(starts.count, NULL)
        taken = in_rounds(len(self._lines), starts.count, self._config.order, self._random)
        return Choice(np.ones(starts.count, np.int64), taken, none, none)

    def contents(self, prompts: NDArray[np.int64], made: Made) -> Iterator[pa.Table]:
        """See `Contents`."""
        for part in batches(prompts):
            yield contents_table(len(part), text=self._lines.take(pa.array(part)))
