"""What a source of prompts does: first it says which prompt each request asks, then it makes their contents.

Choosing is cheap and is done for the prompts and again for the schedule, with the same draws. Contents are made in
batches, so that a million prompts need no more memory than a few thousand.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inference_energy.contracts.schedule import PROMPTS
from inference_energy.errors import Notice
from inference_energy.plan.arrivals.processes import Starts

CONTENTS = pa.schema([field for field in PROMPTS if field.name not in ("prompt_id", "workload")])
"""What a source makes of a prompt."""
BATCH = 1 << 14
"""Most prompts made at a time."""


@dataclass(frozen=True)
class Choice:
    """Which prompts are asked.

    Attributes:
        turns: for each beginning, how many requests it has: 1, or the turns of a conversation.
        prompt: for each request, which of the source's prompts it asks.
        prompt_tokens: for each request its length, `NULL` where only the server can count it.
        max_tokens: for each request what the source itself says, `NULL` where it says nothing.
        notes: what was left out, for people.
    """

    turns: NDArray[np.int64]
    prompt: NDArray[np.int64]
    prompt_tokens: NDArray[np.int64]
    max_tokens: NDArray[np.int64]
    notes: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class Made:
    """What contents may depend on besides the source: the model's number of token ids, and the answers' lengths.

    Attributes:
        vocabulary: None where it is not known.
        max_tokens: of the cell's requests, for planned histories.
    """

    vocabulary: int | None
    max_tokens: NDArray[np.int64]


class Contents(Protocol):
    """Prompts whose contents can be made."""

    @property
    def identity(self) -> tuple[str, ...]:
        """Cells of a workload whose prompts have the same identity share them."""

    @property
    def size(self) -> int:
        """How many prompts there are."""

    def contents(self, prompts: NDArray[np.int64], made: Made) -> Iterator[pa.Table]:
        """The contents of some of the prompts, in this order, with the columns `CONTENTS`.

        Raises:
            InputError: the model's vocabulary does not allow it.
        """


class Source(Contents, Protocol):
    """A source of prompts."""

    def choose(self, starts: Starts) -> Choice:
        """Which prompts a cell's requests ask.

        Raises:
            InputError: the source cannot do what is asked.
        """


def batches(prompts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The prompts in parts of at most `BATCH`."""
    for start in range(0, len(prompts), BATCH):
        yield prompts[start : start + BATCH]


def contents_table(count: int, **columns: pa.Array) -> pa.Table:
    """A table of `CONTENTS`; columns that are not given are null."""
    arrays = [columns.get(field.name, pa.nulls(count, field.type)).cast(field.type) for field in CONTENTS]
    return pa.Table.from_arrays(arrays, schema=CONTENTS)


def in_rounds(available: int, count: int, order: str, random: np.random.Generator) -> NDArray[np.int64]:
    """Which of the available prompts is taken each time: all of them before one is taken again.

    Args:
        available: how many there are.
        count: how many are wanted.
        order: `random` or `file`.
        random: where the draws come from; not touched with `file`.
    """
    if order == "file":
        return np.arange(count, dtype=np.int64) % available
    rounds = [random.permutation(available) for _ in range(-(-count // available))]
    return np.concatenate(rounds)[:count].astype(np.int64) if rounds else np.empty(0, np.int64)
