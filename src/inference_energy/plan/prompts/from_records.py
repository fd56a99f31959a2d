"""Prompts that exist already: from a file of records, cut into turns, or from an earlier run's prompts.parquet."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from inference_energy.config.load.prompts import Order
from inference_energy.config.load.workload import Conversations
from inference_energy.contracts.outside import decode_json, path_name
from inference_energy.contracts.schedule import PROMPTS
from inference_energy.errors import InputError, Notice
from inference_energy.plan.arrivals.processes import Starts
from inference_energy.plan.distributions import turns
from inference_energy.plan.prompts.messages import Message
from inference_energy.plan.prompts.protocol import CONTENTS, Choice, ContentInputs, batches, contents_table, in_rounds
from inference_energy.plan.tables import NULL, Line, names_found


@dataclass(frozen=True)
class Record:
    """One prompt, or one conversation: exactly one of `text`, `token_ids` and `turns` is set.

    Attributes:
        turns: a conversation: the messages that each turn adds, ending with the user's.
    """

    text: str | None = None
    token_ids: Sequence[int] | None = None
    turns: Sequence[Sequence[Message]] | None = None
    answer: str | None = None
    max_tokens: int | None = None
    line: Line | None = None


@dataclass(frozen=True)
class Draws:
    """The generators with which a cell chooses among records."""

    prompts: np.random.Generator
    turns: np.random.Generator


class RecordedSource:
    """Records, drawn in rounds.

    Prompts are numbered over all turns of the first record, then of the second, and so on. With `history: actual` a
    later turn is the new user message alone, since the client prepends the conversation as it took place; with
    `planned` it contains the whole recorded conversation up to this turn.
    """

    def __init__(
        self,
        identity: tuple[str, ...],
        records: Sequence[Record],
        order: Order,
        draws: Draws,
        *,
        conversations: Conversations | None,
        history: str,
        notes: tuple[Notice, ...] = (),
    ) -> None:
        self.identity = (*identity, history if conversations else "single")
        self._records = records
        self._order = order
        self._draws = draws
        self._conversations = conversations
        # A single request contains its whole conversation.
        self._planned = history == "planned" or conversations is None
        self._notes = notes
        self._turns = np.array([len(record.turns) if record.turns else 1 for record in records], dtype=np.int64)
        self._first = np.concatenate(([0], np.cumsum(self._turns)))

    @property
    def size(self) -> int:
        """See `Contents`."""
        return int(self._first[-1])

    def choose(self, starts: Starts) -> Choice:
        """See `Source`."""
        chosen = in_rounds(len(self._records), starts.count, self._order, self._draws.prompts)
        counts = np.ones(starts.count, dtype=np.int64)
        if self._conversations:
            counts = np.minimum(turns(self._conversations.turns, starts.count, self._draws.turns), self._turns[chosen])
        rows, turn = np.repeat(chosen, counts), _count_each(counts)
        max_tokens = np.array([record.max_tokens or NULL for record in self._records], dtype=np.int64)
        tokens = [NULL if record.token_ids is None else len(record.token_ids) for record in self._records]
        return Choice(counts, self._first[rows] + turn, np.array(tokens, np.int64)[rows], max_tokens[rows], self._notes)

    def contents(self, prompts: NDArray[np.int64], inputs: ContentInputs) -> Iterator[pa.Table]:
        """See `Contents`."""
        rows = np.searchsorted(self._first, prompts, side="right") - 1
        turn = prompts - self._first[rows]
        for part in batches(np.arange(len(prompts))):
            contents = [
                self._content(self._records[row], number, inputs.vocabulary)
                for row, number in zip(rows[part].tolist(), turn[part].tolist(), strict=True)
            ]
            columns = {name: [row.get(name) for row in contents] for name in ("text", "messages", "answer")}
            ids = pa.array([row.get("token_ids") for row in contents], pa.list_(pa.int32()))
            strings = {name: pa.array(values, pa.string()) for name, values in columns.items()}
            yield contents_table(len(contents), token_ids=ids, **strings)

    def _content(self, record: Record, turn: int, vocabulary: int | None) -> dict[str, Any]:
        if record.turns is None:
            if record.token_ids is not None and vocabulary is not None and max(record.token_ids) >= vocabulary:
                text = f"token id {max(record.token_ids)} does not exist in a vocabulary of {vocabulary}"
                raise record.line.error(text) if record.line else InputError(text)
            return {"text": record.text, "token_ids": record.token_ids, "answer": record.answer}
        new = [message for message in record.turns[turn] if self._planned or message["role"] != "assistant"]
        if self._planned:
            new = [message for before in record.turns[:turn] for message in before] + new
        last = turn == len(record.turns) - 1
        return {"messages": json.dumps(new, ensure_ascii=False), "answer": record.answer if last else None}


def _count_each(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1, ... up to each count, one after another."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)


class PlannedSource:
    """Prompts of an earlier run's prompts.parquet, to which a replayed schedule refers by id."""

    def __init__(self, path: str, key: str) -> None:
        """Read the file.

        Raises:
            InputError: the file cannot be read or lacks a column.
        """
        name = path_name(path)
        try:
            table = pq.read_table(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InputError(f"{name} cannot be read as Parquet: {str(error)[:300]}", key=key) from error
        lacking = [column for column in PROMPTS.names if column not in table.column_names]
        if lacking:
            found = names_found(dict.fromkeys(table.column_names))
            raise InputError(f"{name} lacks the column {', '.join(lacking)}; found: {found}", key=key)
        try:
            self._table = table.select(PROMPTS.names).cast(PROMPTS)
        except (ValueError, pa.ArrowException) as error:
            raise InputError(f"{name} holds no prompts: {str(error)[:300]}", key=key) from error
        if problem := _problem(self._table):
            raise InputError(f"{name}: {problem}", key=key)
        self.identity = ("planned", path)
        self._path, self._key = path, key

    @property
    def size(self) -> int:
        """See `Contents`."""
        return int(self._table.num_rows)

    def indices(self, prompt_id: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices of the prompts with these ids.

        Raises:
            InputError: the file lacks an id.
        """
        ids = self._table["prompt_id"].to_numpy()
        order = np.argsort(ids, kind="stable")
        index = np.minimum(np.searchsorted(ids[order], prompt_id), max(0, len(ids) - 1))
        is_in_file = ids[order][index] == prompt_id if len(ids) else np.zeros(len(prompt_id), dtype=bool)
        if not is_in_file.all():
            raise InputError(
                f"{self._path} lacks prompt {int(prompt_id[~is_in_file][0])}; is it that of this schedule?",
                key=self._key,
            )
        return np.asarray(order[index])

    def contents(self, prompts: NDArray[np.int64], inputs: ContentInputs) -> Iterator[pa.Table]:
        """See `Contents`."""
        for part in batches(prompts):
            yield self._table.select(CONTENTS.names).take(pa.array(part)).cast(CONTENTS)


def _problem(prompts: pa.Table) -> str | None:
    """Return why a row is no prompt; None if all are. The load processes take the contents as they are."""
    forms = sum(pc.is_valid(prompts[name]).cast(pa.int8()).to_numpy() for name in ("text", "token_ids", "messages"))
    if (forms != 1).any():
        return f"row {int(np.flatnonzero(forms != 1)[0]) + 1}: exactly one of text, token_ids and messages is expected"
    if prompts["prompt_id"].null_count:
        return "prompt_id: a number is expected in every row"
    tokens = pc.list_flatten(prompts["token_ids"])
    if tokens.null_count or (len(tokens) and pc.min(tokens).as_py() < 0):
        return "token_ids: whole numbers from 0 up are expected"
    for row, text in enumerate(prompts["messages"].to_pylist(), start=1):
        if text is None:
            continue
        try:
            messages = decode_json(text)
        except ValueError as error:
            return f"row {row}: messages: {error}"
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            return f"row {row}: messages: a list of objects is expected"
    return None
