"""Conversations of random words: each user message has the length that is drawn for it."""

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inference_energy.config.load.prompts import SyntheticPrompts
from inference_energy.config.load.workload import Conversations
from inference_energy.plan.arrivals.starts import Starts
from inference_energy.plan.cells import Cell
from inference_energy.plan.lengths import lengths, turns
from inference_energy.plan.nulls import NULL, column
from inference_energy.plan.prompts.recorded import Message
from inference_energy.plan.prompts.source import Choice, Made, contents_table
from inference_energy.plan.prompts.synthetic import groups, shared_prefixes
from inference_energy.plan.prompts.words import WORDS, texts
from inference_energy.plan.seeds import generator

_CONVERSATIONS = 256
"""Conversations made at a time."""


class SyntheticChats:
    """Conversations of one cell; prompt i is that of its request i.

    A shared beginning is the system message of the first turn. Under `history: planned` the answers in the history are
    random words too, about as many as tokens were asked for.
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
        none = np.full(count, NULL)
        return Choice(self._turns, np.arange(count), none, none)

    def contents(self, prompts: NDArray[np.int64], made: Made) -> Iterator[pa.Table]:
        """See `Contents`; all of a cell's prompts are made, in order."""
        asked, answered = (generator(self._seed, self._cell.name, draw) for draw in ("prompts", "answers"))
        shared = shared_prefixes(self._config, self._cell.workload_name, self._seed, 0, len(WORDS))
        systems = [] if shared is None else texts(shared.ravel(), np.full(*shared.shape)).to_pylist()
        planned = self._cell.workload.history == "planned"
        firsts = np.concatenate(([0], np.cumsum(self._turns)))
        for start in range(0, len(self._turns), _CONVERSATIONS):
            stop = min(start + _CONVERSATIONS, len(self._turns))
            rows = slice(int(firsts[start]), int(firsts[stop]))
            users = _words(self._lengths[rows], asked)
            answers = _words(made.max_tokens[rows], answered) if planned else []
            messages: list[str] = []
            for number in range(start, stop):
                group = int(self._group[number])
                said: list[Message] = [{"role": "system", "content": systems[group]}] if group >= 0 else []
                for _ in range(int(self._turns[number])):
                    at = len(messages)
                    said.append({"role": "user", "content": users[at]})
                    messages.append(json.dumps(said))
                    said = [*said, {"role": "assistant", "content": answers[at]}] if planned else []
            group_of = np.repeat(self._group[start:stop], self._turns[start:stop])
            yield contents_table(len(messages), messages=pa.array(messages, pa.string()), group=column(group_of))


def _words(sizes: NDArray[np.int64], random: np.random.Generator) -> list[str]:
    made: list[str] = texts(random.integers(0, len(WORDS), int(sizes.sum())), sizes).to_pylist()
    return made
