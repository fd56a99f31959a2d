"""The protocol of a source of prompts: it chooses a prompt for each request, then makes the prompts' contents.

Choosing is cheap and is done twice, for the prompts and for the schedule, with the same draws. Contents are made in
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
"""Columns that a source fills."""
BATCH = 1 << 14
"""Largest number of prompts made at a time."""


@dataclass(frozen=True)
class Choice:
    """The prompts chosen for a cell's requests.

    Attributes:
        turns: number of requests per start: 1, or the turns of a conversation.
        prompt: index of each request's prompt in the source.
        prompt_tokens: length of each request's prompt; `NULL` if only the server can count it.
        max_tokens: the source's own limit for each request; `NULL` if it has none.
        notes: notes for the user on prompts left out.
    """

    turns: NDArray[np.int64]
    prompt: NDArray[np.int64]
    prompt_tokens: NDArray[np.int64]
    max_tokens: NDArray[np.int64]
    notes: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class ContentInputs:
    """Inputs of the contents besides the source.

    Attributes:
        vocabulary: number of token ids of the model; None if unknown.
        max_tokens: limits of the cell's requests, for the answers in planned histories.
    """

    vocabulary: int | None
    max_tokens: NDArray[np.int64]


class Contents(Protocol):
    """Prompts whose contents can be made."""

    @property
    def identity(self) -> tuple[str, ...]:
        """Cells of one workload share their prompts if the identities are equal."""

    @property
    def size(self) -> int:
        """Number of prompts."""

    def contents(self, prompts: NDArray[np.int64], inputs: ContentInputs) -> Iterator[pa.Table]:
        """Yield the contents of some of the prompts, in this order, with the columns `CONTENTS`.

        Raises:
            InputError: the vocabulary is unknown, or too small for a token id.
        """


class Source(Contents, Protocol):
    """A source of prompts."""

    def choose(self, starts: Starts) -> Choice:
        """Choose the prompts of a cell's requests.

        Raises:
            InputError: the source's configuration cannot be used.
        """


def batches(prompts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the prompts in parts of at most `BATCH`."""
    for start in range(0, len(prompts), BATCH):
        yield prompts[start : start + BATCH]


def contents_table(count: int, **columns: pa.Array) -> pa.Table:
    """Return a table of `CONTENTS`; missing columns are null."""
    arrays = [columns.get(field.name, pa.nulls(count, field.type)).cast(field.type) for field in CONTENTS]
    return pa.Table.from_arrays(arrays, schema=CONTENTS)


def in_rounds(available: int, count: int, order: str, random: np.random.Generator) -> NDArray[np.int64]:
    """Return indices of prompts in rounds: all prompts are used before one is used again.

    Args:
        available: number of prompts.
        count: number of indices.
        order: `random` or `file`.
        random: generator of the draws; unused with `file`.
    """
    if order == "file":
        return np.arange(count, dtype=np.int64) % available
    rounds = [random.permutation(available) for _ in range(-(-count // available))]
    return np.concatenate(rounds)[:count].astype(np.int64) if rounds else np.empty(0, np.int64)
