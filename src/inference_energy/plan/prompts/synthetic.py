"""Random single prompts of given length: token ids or words, with shared beginnings or blocks if wanted."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inference_energy.config.load.prompts import SyntheticPrompts
from inference_energy.plan.arrivals.starts import Starts
from inference_energy.plan.arrivals.traces.trace import Blocks
from inference_energy.plan.cells import Cell
from inference_energy.plan.lengths import lengths
from inference_energy.plan.nulls import NULL, column
from inference_energy.plan.prompts.blocks import block_values
from inference_energy.plan.prompts.ids import id_lists, id_range, with_prefixes
from inference_energy.plan.prompts.source import Choice, Made, contents_table
from inference_energy.plan.prompts.words import WORDS, texts
from inference_energy.plan.seeds import generator

_BATCH_TOKENS = 1 << 22
"""About so many values are made at a time."""


class SyntheticSource:
    """Prompts of one cell; prompt i is that of its beginning i.

    `group` in the contents is the shared beginning, or the name of the first block.
    """

    def __init__(self, cell: Cell, config: SyntheticPrompts, seed: int, key: str) -> None:
        self.identity = ("synthetic", cell.name)
        self._cell = cell
        self._config = config
        self._seed = seed
        self._key = key
        self._lengths: NDArray[np.int64] = np.empty(0, np.int64)
        self._group: NDArray[np.int64] = np.empty(0, np.int64)
        self._blocks: Blocks | None = None

    @property
    def size(self) -> int:
        """See `Contents`; known once they are chosen."""
        return len(self._lengths)

    def choose(self, starts: Starts) -> Choice:
        """See `Source`."""
        own = starts.prompt_tokens
        if own is None:
            random = generator(self._seed, self._cell.name, "lengths")
            own = lengths(self._config.length, starts.count, random, f"{self._key}.length")
        self._lengths, self._blocks = own, starts.blocks
        self._group = groups(self._config, starts.count, generator(self._seed, self._cell.name, "groups"))
        if self._blocks is not None:
            first = self._blocks.starts[:-1]
            some = first < self._blocks.starts[1:]
            self._group = np.where(some, self._blocks.ids[np.where(some, first, 0)], NULL)
        as_ids = self._config.form == "token_ids"
        whole = own + self._before()
        return Choice(
            turns=np.ones(starts.count, np.int64),
            prompt=np.arange(starts.count),
            prompt_tokens=whole if as_ids else np.full(starts.count, NULL),
            max_tokens=np.full(starts.count, NULL) if starts.max_tokens is None else starts.max_tokens,
        )

    def contents(self, prompts: NDArray[np.int64], made: Made) -> Iterator[pa.Table]:
        """See `Contents`; they are made one after another from the first, whichever are asked."""
        as_ids = self._config.form == "token_ids"
        low, high = id_range(made.vocabulary, self._key) if as_ids else (0, len(WORDS))
        random = generator(self._seed, self._cell.name, "prompts")
        shared = shared_prefixes(self._config, self._cell.workload_name, self._seed, low, high)
        values: NDArray[np.integer[Any]]
        for rows in _in_parts(prompts, self._lengths):
            own, group = self._lengths[rows], self._group[rows]
            if self._blocks is not None:
                name = self._cell.workload_name
                values = low + block_values(self._blocks, rows, own, high - low, self._seed, name)
            else:
                values = random.integers(low, high, int(own.sum()), dtype=np.int32)
                if shared is not None:
                    values, own = with_prefixes(values, own, group, shared)
            made_of = {"token_ids": id_lists(values, own)} if as_ids else {"text": texts(values, own)}
            yield contents_table(len(rows), group=column(group), **made_of)

    def _before(self) -> NDArray[np.int64]:
        prefix = self._config.prefix
        if prefix is None or self._blocks is not None:
            return np.zeros(len(self._group), np.int64)
        return np.where(self._group >= 0, prefix.tokens, 0)


def groups(config: SyntheticPrompts, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Which shared beginning each prompt has, `NULL` for none."""
    if config.prefix is None:
        return np.full(count, NULL)
    has_one = random.random(count) < config.prefix.share
    return np.where(has_one, random.integers(0, config.prefix.groups, count), NULL)


def shared_prefixes(
    config: SyntheticPrompts, workload: str, seed: int, low: int, high: int
) -> NDArray[np.int64] | None:
    """The shared beginnings of a workload, one a row; the same in all its cells. None where it has none."""
    if config.prefix is None:
        return None
    random = generator(seed, workload, "prefixes")
    return random.integers(low, high, (config.prefix.groups, config.prefix.tokens))


def _in_parts(prompts: NDArray[np.int64], sizes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Consecutive prompts, of about `_BATCH_TOKENS` values together."""
    part = np.cumsum(sizes[prompts]) // _BATCH_TOKENS
    yield from np.split(prompts, np.flatnonzero(np.diff(part)) + 1) if len(prompts) else ()
