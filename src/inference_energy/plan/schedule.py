"""The schedule and the prompts of a session, drawn before anything runs.

For each cell the schedule says which prompt is sent when, by which user, and with which limit of tokens. It is drawn
from named generators, once for the prompts and once more for the schedule, with the same outcome. The contents of the
prompts are made in advance too, so that nothing is tokenised in the timed path. Requests that send again what was sent
before in the session, so that a server could answer them from its cache, are counted.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import ClosedArrival, ScheduleArrival
from inference_energy.config.load.prompts import SyntheticPrompts
from inference_energy.contracts.schedule import PROMPTS, SCHEDULE
from inference_energy.errors import InputError, Notice, RunError, Setting
from inference_energy.plan.arrivals.processes import Starts, cell_starts
from inference_energy.plan.arrivals.replay import ReplayedRows, replayed_rows
from inference_energy.plan.cells import Cell
from inference_energy.plan.distributions import generator, lengths, times_ns
from inference_energy.plan.prompts.from_records import PlannedSource
from inference_energy.plan.prompts.protocol import ContentInputs, Contents
from inference_energy.plan.prompts.registry import prompt_source
from inference_energy.plan.tables import NULL, column, filled

Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class CellDraws:
    """A cell's own draws, one array per column of `contracts.schedule.SCHEDULE`; missing values are `NULL`.

    Attributes:
        conversation: number of the conversation, from 0 in each cell.
        prompt: index of each request's prompt in the source.
        source: source of the prompts' contents.
        notes: notes for the user on requests left out.
    """

    arrival_ns: Integers
    user: Integers
    conversation: Integers
    turn: Integers
    think_ns: Integers
    prompt: Integers
    prompt_tokens: Integers
    max_tokens: Integers
    source: Contents
    notes: tuple[Notice, ...]


@dataclass(frozen=True, kw_only=True)
class CellRequests(CellDraws):
    """The requests of a cell, with ids that are unique in the session.

    Attributes:
        cell: the cell.
        prompt_id: id of each request's prompt in the session.
        new: indices of the source's prompts that no earlier cell sends, in the order of their ids.
    """

    cell: Cell
    prompt_id: Integers
    new: Integers


def session_requests(cells: Sequence[Cell], seed: int) -> list[CellRequests]:
    """Return the requests of all cells, in order.

    Raises:
        InputError: a file of prompts, lengths or arrivals cannot be used; the message has the key.
    """
    planned: list[CellRequests] = []
    ids_by_source: dict[tuple[str, ...], Integers] = {}
    next_prompt = next_conversation = 0
    for cell in cells:
        drawn = _replayed(cell, cell.arrival, seed) if isinstance(cell.arrival, ScheduleArrival) else _drawn(cell, seed)
        source_key = (cell.workload_name, *drawn.source.identity)
        ids = ids_by_source.setdefault(source_key, np.full(drawn.source.size, NULL))
        prompts, first = np.unique(drawn.prompt, return_index=True)
        prompts = prompts[np.argsort(first, kind="stable")]
        new = prompts[ids[prompts] == NULL]
        ids[new] = next_prompt + np.arange(len(new))
        next_prompt += len(new)
        conversation = np.where(drawn.conversation == NULL, NULL, drawn.conversation + next_conversation)
        next_conversation += int(drawn.conversation.max(initial=NULL)) + 1
        columns = {field.name: getattr(drawn, field.name) for field in fields(drawn)} | {"conversation": conversation}
        planned.append(CellRequests(cell=cell, prompt_id=ids[drawn.prompt], new=new, **columns))
    return planned


def prompt_tables(cells: Sequence[Cell], seed: int, vocabulary: int | None) -> Iterator[pa.Table]:
    """Yield the prompts of all cells in the order of their ids, each once, in tables of some thousands.

    Args:
        cells: warm-up and windows of a session.
        seed: root seed.
        vocabulary: number of token ids of the model; None if unknown.

    Yields:
        Tables with the columns of `contracts.schedule.PROMPTS`.

    Raises:
        InputError: a file cannot be used, or the vocabulary for token ids is unknown.
    """
    next_id = 0
    for requests in session_requests(cells, seed):
        inputs = ContentInputs(vocabulary, requests.max_tokens)
        for contents in requests.source.contents(requests.new, inputs):
            count = contents.num_rows
            ids = pa.array(np.arange(next_id, next_id + count))
            workload = pa.repeat(pa.scalar(requests.cell.workload_name), count)
            yield pa.Table.from_arrays([ids, workload, *contents.columns], schema=PROMPTS)
            next_id += count


def make_prompts(cells: Sequence[Cell], seed: int, vocabulary: int | None) -> pa.Table:
    """Return the prompts of all cells in one table; see `prompt_tables`."""
    return pa.concat_tables([PROMPTS.empty_table(), *prompt_tables(cells, seed, vocabulary)])


_COLUMNS = ("arrival_ns", "user", "conversation", "turn", "think_ns", "prompt_id", "prompt_tokens", "max_tokens")


def make_schedule(planned: Sequence[CellRequests], prompts: Iterable[pa.RecordBatch]) -> pa.Table:
    """Return a table with a row per request and the columns of `contracts.schedule.SCHEDULE`.

    Args:
        planned: the session's requests, the same that the prompts were made for.
        prompts: contents of the prompts in the order of their ids; `Table.to_batches()` for a table in memory.

    Raises:
        RunError: the prompts were made for other cells.
    """
    repeated, prompt_count = repeated_content(planned, prompts)
    planned_count = sum(len(requests.new) for requests in planned)
    if prompt_count != planned_count:
        raise RunError(f"{prompt_count} prompts where {planned_count} are asked: were they made for this schedule?")
    counts = [len(requests.prompt_id) for requests in planned]
    reuse = np.repeat([requests.cell.workload.prefix_reuse for requests in planned], counts).astype(bool)
    columns = {name: _joined(planned, name) for name in _COLUMNS}
    return pa.Table.from_pydict(
        {
            "request_id": pa.array(np.arange(sum(counts))),
            "cell": pa.chunked_array(
                [pa.repeat(pa.scalar(requests.cell.name), len(requests.prompt_id)) for requests in planned],
                pa.string(),
            ),
            **columns,
            "salt": pa.array(repeated & ~reuse),
        },
        schema=SCHEDULE,
    )


def schedule_notes(planned: Sequence[CellRequests]) -> list[Notice]:
    """Return the notes on arrivals and prompts left out of files, each once."""
    return list(dict.fromkeys(note for requests in planned for note in requests.notes))


def _drawn(cell: Cell, seed: int) -> CellDraws:
    starts = cell_starts(cell, seed)
    source = prompt_source(cell, seed)
    choice = source.choose(starts)
    count, first = int(choice.turns.sum()), np.cumsum(choice.turns) - choice.turns
    start = np.repeat(np.arange(starts.count), choice.turns)
    turn = np.arange(count) - first[start]
    chats = cell.workload.conversations is not None
    arrival = np.full(count, NULL)
    if starts.offsets_ns is not None:
        arrival[first] = starts.offsets_ns
    user, think = _users(cell, starts, start, turn, seed)
    return CellDraws(
        arrival_ns=arrival,
        user=user,
        conversation=start if chats else np.full(count, NULL),
        turn=turn if chats else np.full(count, NULL),
        think_ns=think,
        prompt=choice.prompt,
        prompt_tokens=choice.prompt_tokens,
        max_tokens=_max_tokens(cell, choice.max_tokens, seed),
        source=source,
        notes=(*starts.notes, *choice.notes),
    )


def _users(cell: Cell, starts: Starts, start: Integers, turn: Integers, seed: int) -> tuple[Integers, Integers]:
    """Return the user of each request, and the wait before it.

    A closed loop's N users take the starts in turn. The first request of user u waits u/N of `stagger_s`.
    """
    user, think = np.full(len(start), NULL), np.full(len(start), NULL)
    random, within = (generator(seed, cell.name, *names) for names in (("think",), ("think", "turns")))
    if isinstance(cell.arrival, ClosedArrival):
        users = cell.arrival.concurrency
        user = start % users
        waits = times_ns(cell.arrival.think, starts.count, random)
        early = np.arange(min(users, starts.count))
        waits[early] = np.rint(cell.arrival.stagger_s * 1e9 * early / users).astype(np.int64)
        think = waits[start]
    if cell.workload.conversations:
        think = np.where(turn > 0, times_ns(cell.workload.conversations.think, len(start), within), think)
    return user, think


def _max_tokens(cell: Cell, source_limits: Integers, seed: int) -> Integers:
    """Return the limits of the source or trace, else drawn ones, else the workload's."""
    workload = cell.workload
    if workload.output_length is None:
        drawn = np.full(len(source_limits), workload.max_tokens)
    else:
        random, key = generator(seed, cell.name, "outputs"), f"workloads.{cell.workload_name}.output_length"
        drawn = lengths(workload.output_length, len(source_limits), random, key)
    return np.where(source_limits == NULL, drawn, source_limits)


def _replayed(cell: Cell, arrival: ScheduleArrival, seed: int) -> CellDraws:
    rows = replayed_rows(cell, arrival)
    source: Contents
    if arrival.prompts is not None:
        earlier = PlannedSource(arrival.prompts, f"{cell.key}.arrival.prompts")
        source, prompt, prompt_tokens, notes = earlier, earlier.indices(rows.prompt_id), rows.prompt_tokens, rows.notes
    else:
        source, prompt, prompt_tokens, notes = _new_contents(cell, rows, seed)
    return CellDraws(
        arrival_ns=rows.arrival_ns,
        user=rows.user,
        conversation=rows.conversation,
        turn=rows.turn,
        think_ns=rows.think_ns,
        prompt=prompt,
        prompt_tokens=prompt_tokens,
        max_tokens=_max_tokens(cell, rows.max_tokens, seed),
        source=source,
        notes=notes,
    )


def _new_contents(cell: Cell, rows: ReplayedRows, seed: int) -> tuple[Contents, Integers, Integers, tuple[Notice, ...]]:
    """Return prompts of the workload in place of the schedule's: as many distinct ones, of the schedule's lengths."""
    _, first, distinct = np.unique(rows.prompt_id, return_index=True, return_inverse=True)
    prompt_tokens = rows.prompt_tokens[first]
    has_length = prompt_tokens != NULL
    if has_length.any() and not isinstance(cell.workload.prompts, SyntheticPrompts):
        raise InputError(
            "the schedule says how long prompts are, which only synthetic ones can be",
            key=f"{cell.key}.arrival.path",
            write=(
                Setting(f"workloads.{cell.workload_name}.prompts.source", "synthetic"),
                Setting(f"{cell.key}.arrival.prompts", "the schedule's own prompts.parquet"),
            ),
        )
    if has_length.any() and not has_length.all():
        raise InputError(
            "the schedule has lengths for some prompts only",
            key=f"{cell.key}.arrival.path",
            write=(Setting(f"{cell.key}.arrival.prompts"),),
        )
    source = prompt_source(cell, seed)
    choice = source.choose(Starts(len(first), None, prompt_tokens=prompt_tokens if has_length.all() else None))
    return source, choice.prompt[distinct], choice.prompt_tokens[distinct], (*rows.notes, *choice.notes)


_DIGEST = 8
"""Bytes; the probability that any two of a million prompts collide is 3e-8."""


def repeated_content(cells: Sequence[CellRequests], prompts: Iterable[pa.RecordBatch]) -> tuple[NDArray[np.bool_], int]:
    """Return whether an earlier request had each request's content or its shared prefix.

    Requests are in the order of the cells, and of the rows within a cell. A later turn of a conversation contains the
    earlier turns, so it always repeats content.

    Args:
        cells: the session's requests.
        prompts: contents of the prompts, in the order of their ids.

    Returns:
        One value per request over all cells, and the number of prompts.
    """
    contents, groups = [], []
    for batch in prompts:
        contents.append(_digests(batch))
        groups.append(filled(batch["group"]))
    content = np.concatenate([np.empty(0, np.uint64), *contents])
    group = np.concatenate([np.empty(0, np.int64), *groups])
    prompt_ids = np.concatenate([np.empty(0, np.int64), *(cell.prompt_id for cell in cells)])
    if len(prompt_ids) and prompt_ids.max() >= len(content):
        return np.zeros(len(prompt_ids), dtype=bool), len(content)
    turn = np.concatenate([np.empty(0, np.int64), *(cell.turn for cell in cells)])
    workload = np.repeat([cell.cell.workload_name for cell in cells], [len(cell.prompt_id) for cell in cells])
    same_content = pd.Series(content[prompt_ids]).duplicated().to_numpy()
    same_prefix = pd.DataFrame({"workload": workload, "group": group[prompt_ids]}).duplicated().to_numpy()
    return same_content | (same_prefix & (group[prompt_ids] != NULL)) | (turn > 0), len(content)


def _digests(batch: pa.RecordBatch) -> NDArray[np.uint64]:
    """Return a digest of the bytes of each prompt: its token ids, its text, or its messages."""
    values = np.zeros(batch.num_rows, dtype=np.uint64)
    for name in ("token_ids", "text", "messages"):
        column = batch[name]
        rows = np.flatnonzero(~column.is_null().to_numpy(zero_copy_only=False))
        if not len(rows):
            continue
        width = 4 if pa.types.is_list(column.type) else 1
        offsets = np.frombuffer(column.buffers()[1], dtype="<i4")[column.offset : column.offset + batch.num_rows + 1]
        data = memoryview(column.values.buffers()[1] if width == 4 else column.buffers()[2])
        begin = column.values.offset if width == 4 else 0
        starts, ends = (((offset[rows] + np.int64(begin)) * width).tolist() for offset in (offsets[:-1], offsets[1:]))
        digests = [
            hashlib.blake2b(data[start:end], digest_size=_DIGEST).digest()
            for start, end in zip(starts, ends, strict=True)
        ]
        values[rows] = np.frombuffer(b"".join(digests), dtype="<u8")
    return values


def _joined(planned: Sequence[CellRequests], name: str) -> pa.ChunkedArray:
    return pa.chunked_array([column(getattr(requests, name)) for requests in planned], pa.int64())
