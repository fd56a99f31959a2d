"""The requests of a session: for each cell which prompt is asked when, by whom, and for how many tokens.

All of it is drawn here from named generators, once for the prompts and once more for the schedule, with the same
outcome. Contents of prompts are not made here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import ClosedArrival, ScheduleArrival
from inference_energy.config.load.prompts import SyntheticPrompts
from inference_energy.errors import InputError
from inference_energy.plan.arrivals.replay import ReplayedRows, replayed_rows
from inference_energy.plan.arrivals.starts import Starts, starts_of
from inference_energy.plan.cells import Cell
from inference_energy.plan.lengths import lengths
from inference_energy.plan.nulls import NULL
from inference_energy.plan.prompts.planned import PlannedSource
from inference_energy.plan.prompts.source import Contents
from inference_energy.plan.prompts.sources import source_of
from inference_energy.plan.seeds import generator
from inference_energy.plan.times import times_ns

Whole = NDArray[np.int64]


@dataclass(frozen=True)
class CellRequests:
    """The requests of a cell, one array a column of `contracts.schedule.SCHEDULE`, `NULL` where there is none.

    Attributes:
        prompt: which of the source's prompts each asks.
        prompt_id: its id in the session.
        new: of the source's prompts those that no cell before asks, in the order of their ids.
        source: makes their contents.
        notes: what was left out, for people.
    """

    cell: Cell
    arrival_ns: Whole
    user: Whole
    conversation: Whole
    turn: Whole
    think_ns: Whole
    prompt: Whole
    prompt_tokens: Whole
    max_tokens: Whole
    source: Contents
    notes: tuple[str, ...]
    prompt_id: Whole
    new: Whole


@dataclass(frozen=True)
class _Drawn:
    """What a cell's own draws give, before ids are handed out; conversations are counted from 0."""

    arrival_ns: Whole
    user: Whole
    conversation: Whole
    turn: Whole
    think_ns: Whole
    prompt: Whole
    prompt_tokens: Whole
    max_tokens: Whole
    source: Contents
    notes: tuple[str, ...]


def session_requests(cells: Sequence[Cell], seed: int) -> list[CellRequests]:
    """The requests of all cells, in order.

    Raises:
        InputError: a file of prompts, lengths or arrivals cannot be used; the message has the key.
    """
    planned: list[CellRequests] = []
    known: dict[tuple[str, ...], Whole] = {}
    next_prompt = next_conversation = 0
    for cell in cells:
        drawn = _replayed(cell, cell.arrival, seed) if isinstance(cell.arrival, ScheduleArrival) else _drawn(cell, seed)
        ids = known.setdefault((cell.workload_name, *drawn.source.identity), np.full(drawn.source.size, NULL))
        asked, first = np.unique(drawn.prompt, return_index=True)
        asked = asked[np.argsort(first, kind="stable")]
        new = asked[ids[asked] == NULL]
        ids[new] = next_prompt + np.arange(len(new))
        next_prompt += len(new)
        conversation = np.where(drawn.conversation == NULL, NULL, drawn.conversation + next_conversation)
        next_conversation += int(drawn.conversation.max(initial=NULL)) + 1
        own = {field.name: getattr(drawn, field.name) for field in fields(drawn)} | {"conversation": conversation}
        planned.append(CellRequests(cell=cell, prompt_id=ids[drawn.prompt], new=new, **own))
    return planned


def _drawn(cell: Cell, seed: int) -> _Drawn:
    starts = starts_of(cell, seed)
    source = source_of(cell, seed)
    choice = source.choose(starts)
    count, first = int(choice.turns.sum()), np.cumsum(choice.turns) - choice.turns
    start = np.repeat(np.arange(starts.count), choice.turns)
    turn = np.arange(count) - first[start]
    chats = cell.workload.conversations is not None
    arrival = np.full(count, NULL)
    if starts.offsets_ns is not None:
        arrival[first] = starts.offsets_ns
    user, think = _users(cell, starts, start, turn, seed)
    return _Drawn(
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


def _users(cell: Cell, starts: Starts, start: Whole, turn: Whole, seed: int) -> tuple[Whole, Whole]:
    """Who sends each request, and how long it waits.

    A closed loop's users take its beginnings in turn. The first of user u waits u/N of `stagger_s`.
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


def _max_tokens(cell: Cell, given: Whole, seed: int) -> Whole:
    """What the source or a trace says, else what is drawn, else the workload's number."""
    workload = cell.workload
    if workload.output_length is None:
        drawn = np.full(len(given), workload.max_tokens)
    else:
        random, key = generator(seed, cell.name, "outputs"), f"workloads.{cell.workload_name}.output_length"
        drawn = lengths(workload.output_length, len(given), random, key)
    return np.where(given == NULL, drawn, given)


def _replayed(cell: Cell, arrival: ScheduleArrival, seed: int) -> _Drawn:
    rows = replayed_rows(cell, arrival)
    source: Contents
    if arrival.prompts is not None:
        earlier = PlannedSource(arrival.prompts, f"{cell.where}.arrival.prompts")
        source, prompt, prompt_tokens, notes = earlier, earlier.chosen(rows.prompt_id), rows.prompt_tokens, rows.notes
    else:
        source, prompt, prompt_tokens, notes = _new_contents(cell, rows, seed)
    return _Drawn(
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


def _new_contents(cell: Cell, rows: ReplayedRows, seed: int) -> tuple[Contents, Whole, Whole, tuple[str, ...]]:
    """Prompts of the workload for a schedule's: as many different ones, of the lengths that it says."""
    _, first, which = np.unique(rows.prompt_id, return_index=True, return_inverse=True)
    said = rows.prompt_tokens[first]
    known = said != NULL
    if known.any() and not isinstance(cell.workload.prompts, SyntheticPrompts):
        raise InputError(
            f"{cell.where}.arrival.path: the schedule says how long prompts are, which only synthetic ones can be; "
            f"write workloads.{cell.workload_name}.prompts.source: synthetic, or the schedule's own arrival.prompts"
        )
    if known.any() and not known.all():
        raise InputError(f"{cell.where}.arrival.path: the schedule has lengths for some prompts only; write prompts")
    source = source_of(cell, seed)
    choice = source.choose(Starts(len(first), None, prompt_tokens=said if known.all() else None))
    return source, choice.prompt[which], choice.prompt_tokens[which], (*rows.notes, *choice.notes)
