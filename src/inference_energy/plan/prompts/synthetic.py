"""Synthetic prompts of a given length: random token ids or words, single prompts or conversations.

Words are for endpoints whose vocabulary is not known. Single prompts may share beginnings, or be made of named blocks
as in Mooncake's traces: the same name is the same content at any position. The value at a position of a block is a hash
of the seed, the block's name and the position (SplitMix64: Steele, Lea, Flood, OOPSLA 2014), so no block is ever kept,
and a prompt depends on no other. Each user message of a conversation has a length that is drawn for it.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from inference_energy.config.load.prompts import SyntheticPrompts
from inference_energy.config.load.workload import Conversations
from inference_energy.errors import InputError, Setting
from inference_energy.plan.arrivals.processes import Starts
from inference_energy.plan.arrivals.trace_rows import Blocks
from inference_energy.plan.cells import Cell
from inference_energy.plan.distributions import generator, lengths, seed_words, turns
from inference_energy.plan.prompts.messages import Message
from inference_energy.plan.prompts.protocol import Choice, ContentInputs, contents_table
from inference_energy.plan.tables import NULL, column

_BATCH_TOKENS = 1 << 22
"""Approximate number of values made at a time."""


class SyntheticSource:
    """Prompts of one cell; prompt i belongs to start i.

    `group` in the contents is the index of the shared prefix, or the name of the first block.
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
        own_lengths = starts.prompt_tokens
        if own_lengths is None:
            random = generator(self._seed, self._cell.name, "lengths")
            own_lengths = lengths(self._config.length, starts.count, random, f"{self._key}.length")
        self._lengths, self._blocks = own_lengths, starts.blocks
        self._group = groups(self._config, starts.count, generator(self._seed, self._cell.name, "groups"))
        if self._blocks is not None:
            first = self._blocks.starts[:-1]
            has_blocks = first < self._blocks.starts[1:]
            self._group = np.where(has_blocks, self._blocks.ids[np.where(has_blocks, first, 0)], NULL)
        as_ids = self._config.form == "token_ids"
        whole_lengths = own_lengths + self._prefix_lengths()
        return Choice(
            turns=np.ones(starts.count, np.int64),
            prompt=np.arange(starts.count),
            prompt_tokens=whole_lengths if as_ids else np.full(starts.count, NULL),
            max_tokens=np.full(starts.count, NULL) if starts.max_tokens is None else starts.max_tokens,
        )

    def contents(self, prompts: NDArray[np.int64], inputs: ContentInputs) -> Iterator[pa.Table]:
        """See `Contents`; always made in order from the first prompt, whichever prompts are asked for."""
        as_ids = self._config.form == "token_ids"
        low, high = id_range(inputs.vocabulary, self._key) if as_ids else (0, len(WORDS))
        random = generator(self._seed, self._cell.name, "prompts")
        shared = shared_prefixes(self._config, self._cell.workload_name, self._seed, low, high)
        values: NDArray[np.integer[Any]]
        for rows in _in_parts(prompts, self._lengths):
            row_lengths, group = self._lengths[rows], self._group[rows]
            if self._blocks is not None:
                name = self._cell.workload_name
                values = low + block_values(self._blocks, rows, row_lengths, high - low, self._seed, name)
            else:
                values = random.integers(low, high, int(row_lengths.sum()), dtype=np.int32)
                if shared is not None:
                    values, row_lengths = with_prefixes(values, row_lengths, group, shared)
            columns = {"token_ids": id_lists(values, row_lengths)} if as_ids else {"text": texts(values, row_lengths)}
            yield contents_table(len(rows), group=column(group), **columns)

    def _prefix_lengths(self) -> NDArray[np.int64]:
        prefix = self._config.prefix
        if prefix is None or self._blocks is not None:
            return np.zeros(len(self._group), np.int64)
        return np.where(self._group >= 0, prefix.tokens, 0)


_CONVERSATIONS = 256
"""Conversations made at a time."""


class SyntheticChats:
    """Conversations of one cell; prompt i belongs to request i.

    A shared prefix is the system message of the first turn. With `history: planned` the answers in the history are
    random words too, about as many as the limit of tokens.
    """

    def __init__(self, cell: Cell, config: SyntheticPrompts, conversations: Conversations, seed: int, key: str) -> None:
        self.identity = ("chats", cell.name)
        self._cell = cell
        self._config = config
        self._conversations = conversations
        self._seed = seed
        self._key = key
        self._turns: NDArray[np.int64] = np.empty(0, np.int64)
        self._lengths: NDArray[np.int64] = np.empty(0, np.int64)
        self._group: NDArray[np.int64] = np.empty(0, np.int64)

    @property
    def size(self) -> int:
        """See `Contents`; known once they are chosen."""
        return len(self._lengths)

    def choose(self, starts: Starts) -> Choice:
        """See `Source`."""
        name = self._cell.name
        self._turns = turns(self._conversations.turns, starts.count, generator(self._seed, name, "turns"))
        self._group = groups(self._config, starts.count, generator(self._seed, name, "groups"))
        count = int(self._turns.sum())
        random = generator(self._seed, name, "lengths")
        self._lengths = lengths(self._config.length, count, random, f"{self._key}.length")
        nulls = np.full(count, NULL)
        return Choice(self._turns, np.arange(count), nulls, nulls)

    def contents(self, prompts: NDArray[np.int64], inputs: ContentInputs) -> Iterator[pa.Table]:
        """See `Contents`; all of a cell's prompts are made, in order."""
        user_draws, answer_draws = (generator(self._seed, self._cell.name, draw) for draw in ("prompts", "answers"))
        shared = shared_prefixes(self._config, self._cell.workload_name, self._seed, 0, len(WORDS))
        systems = [] if shared is None else texts(shared.ravel(), np.full(*shared.shape)).to_pylist()
        planned = self._cell.workload.history == "planned"
        firsts = np.concatenate(([0], np.cumsum(self._turns)))
        for start in range(0, len(self._turns), _CONVERSATIONS):
            stop = min(start + _CONVERSATIONS, len(self._turns))
            rows = slice(int(firsts[start]), int(firsts[stop]))
            users = _words(self._lengths[rows], user_draws)
            answers = _words(inputs.max_tokens[rows], answer_draws) if planned else []
            messages: list[str] = []
            for number in range(start, stop):
                group = int(self._group[number])
                history: list[Message] = [{"role": "system", "content": systems[group]}] if group >= 0 else []
                for _ in range(int(self._turns[number])):
                    request = len(messages)
                    history.append({"role": "user", "content": users[request]})
                    messages.append(json.dumps(history))
                    history = [*history, {"role": "assistant", "content": answers[request]}] if planned else []
            group_of = np.repeat(self._group[start:stop], self._turns[start:stop])
            yield contents_table(len(messages), messages=pa.array(messages, pa.string()), group=column(group_of))


FIRST_ORDINARY_TOKEN = 1000
"""Token ids below this are often control tokens; they are not drawn when the vocabulary is large enough."""


def id_range(vocabulary: int | None, key: str) -> tuple[int, int]:
    """Return the lowest id to draw, and the one after the highest.

    Raises:
        InputError: the vocabulary is unknown.
    """
    if vocabulary is None:
        raise InputError(
            "the model's vocabulary is not known", key=f"{key}.form", write=(Setting(f"{key}.form", "words"),)
        )
    return (FIRST_ORDINARY_TOKEN if vocabulary > 2 * FIRST_ORDINARY_TOKEN else 0), vocabulary


def id_lists(ids: NDArray[np.integer[Any]], lengths: NDArray[np.int64]) -> pa.Array:
    """Return lists of ids of these lengths, from all ids one after another."""
    starts = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
    return pa.ListArray.from_arrays(starts, pa.array(ids, pa.int32()))


def with_prefixes(
    own: NDArray[np.integer[Any]],
    lengths: NDArray[np.int64],
    group: NDArray[np.int64],
    prefixes: NDArray[np.int64],
) -> tuple[NDArray[np.integer[Any]], NDArray[np.int64]]:
    """Put shared prefixes before rows of values.

    Args:
        own: the rows' own values, one after another.
        lengths: lengths of the rows.
        group: index of each row's prefix; negative: none.
        prefixes: shape (prefixes, length).

    Returns:
        The values of all rows with their prefixes, and their lengths.
    """
    prefix_lengths = np.where(group >= 0, prefixes.shape[1], 0)
    whole_lengths = prefix_lengths + lengths
    row = np.repeat(np.arange(len(lengths)), whole_lengths)
    position = np.arange(int(whole_lengths.sum())) - np.repeat(np.cumsum(whole_lengths) - whole_lengths, whole_lengths)
    is_prefix = position < prefix_lengths[row]
    values = np.empty(len(row), dtype=own.dtype)
    values[~is_prefix] = own
    values[is_prefix] = prefixes[group[row[is_prefix]], position[is_prefix]]
    return values, whole_lengths


_TEXT = (
    "time year way day man life child world school state group hand part place case week work night point home water "
    "room area money story fact month book eye job word side head house friend hour game line law car"
)
WORDS = tuple(_TEXT.split())
"""Common English nouns, about one token each in usual vocabularies."""

_ARRAY = pa.array(WORDS)


def texts(words: NDArray[np.integer[Any]], lengths: NDArray[np.int64]) -> pa.Array:
    """Return texts of words with blanks between them.

    Args:
        words: indices into `WORDS` of all texts, one after another.
        lengths: words in each text.
    """
    starts = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(starts, _ARRAY.take(pa.array(words))), " ")


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def block_values(
    blocks: Blocks, rows: NDArray[np.int64], lengths: NDArray[np.int64], below: int, seed: int, name: str
) -> NDArray[np.int64]:
    """Return the values of some prompts, one after another, each from 0 and below `below`.

    A prompt longer than its blocks continues with values of its own; a shorter one is cut within its last block.

    Args:
        blocks: names of the blocks of all prompts.
        rows: indices of these prompts.
        lengths: lengths of these prompts.
        below: number of distinct values.
        seed: root seed.
        name: owner of the blocks; each owner's blocks have other contents.
    """
    row = np.repeat(np.arange(len(rows)), lengths)
    position = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    number, within = np.divmod(position, blocks.block_tokens)
    first, last = blocks.starts[rows], blocks.starts[rows + 1]
    in_blocks = number < (last - first)[row]
    index = np.where(in_blocks, first[row] + number, 0)
    ids = blocks.ids[index] if len(blocks.ids) else np.zeros(len(row), dtype=np.int64)
    names = np.where(in_blocks, ids.astype(np.uint64), (rows[row] * (1 << 20) + number).astype(np.uint64))
    key, own_key = (np.uint64(word) for word in seed_words(seed, name, "blocks"))
    with np.errstate(over="ignore"):
        mixed = _mix(np.bitwise_xor(names, np.where(in_blocks, key, own_key)))
        hashed = _mix(mixed + (within.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    # The high half times the number of values: as uniform as 32 bits allow.
    return ((hashed >> np.uint64(32)) * np.uint64(below) >> np.uint64(32)).astype(np.int64)


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(value ^ (value >> np.uint64(31)))


def groups(config: SyntheticPrompts, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw the shared prefix of each prompt; `NULL` for none."""
    if config.prefix is None:
        return np.full(count, NULL)
    has_one = random.random(count) < config.prefix.share
    return np.where(has_one, random.integers(0, config.prefix.groups, count), NULL)


def shared_prefixes(
    config: SyntheticPrompts, workload: str, seed: int, low: int, high: int
) -> NDArray[np.int64] | None:
    """Return the shared prefixes of a workload, one per row and the same in all its cells; None if it has none."""
    if config.prefix is None:
        return None
    random = generator(seed, workload, "prefixes")
    return random.integers(low, high, (config.prefix.groups, config.prefix.tokens))


def _in_parts(prompts: NDArray[np.int64], sizes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield consecutive prompts of about `_BATCH_TOKENS` values together."""
    part = np.cumsum(sizes[prompts]) // _BATCH_TOKENS
    yield from np.split(prompts, np.flatnonzero(np.diff(part)) + 1) if len(prompts) else ()


def _words(sizes: NDArray[np.int64], random: np.random.Generator) -> list[str]:
    """Draw texts of random words."""
    words: list[str] = texts(random.integers(0, len(WORDS), int(sizes.sum())), sizes).to_pylist()
    return words
