"""Requests of a closed loop that are sent again.

Requests of a closed loop that are sent again.

What the loops are given to send with, and the group of what they have under way.

One conversation: its turns in order, each some time after the answer to the one before.

The closed loop: users who each send the next request when the answer to the last has ended.

The open loop: each request at its arrival, whatever the server does.

One cell of load: sent at its times or by its users until its end, then drained.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from inference_energy.acquire.load.http.client import RequestResult
from inference_energy.acquire.load.http.request import PlannedRequest
from inference_energy.acquire.load.pacer import Pacer


class RequestRepeater:
    """Gives repeated requests their ids: unique over all workers, and none of the schedule's.

    Args:
        first_id: the first id that the schedule does not use.
        worker, workers: which process this is, of how many.

    Attributes:
        salt: whether repeats are sent under a cache salt; may be changed between cells.
    """

    def __init__(self, first_id: int, worker: int, workers: int, *, salt: bool = True) -> None:
        self._next_id = first_id + worker
        self._step = workers
        self.salt = salt

    def repeat(self, turns: Sequence[PlannedRequest]) -> list[PlannedRequest]:
        """A conversation's turns, to be sent once more."""
        repeated = []
        for request in turns:
            repeated.append(replace(request, request_id=self._next_id, salt=request.salt or self.salt))
            self._next_id += self._step
        return repeated


class Sender(Protocol):
    """Sends a cell's requests."""

    async def send(self, request: PlannedRequest, scheduled_ns: int, history: bytes = b"") -> RequestResult:
        """Send one request and wait for its end; failures are in the record, only cancellation is passed on."""

    def skip(self, request: PlannedRequest, scheduled_ns: int, reason: str) -> None:
        """Record that a request is not sent, and why."""

    def extended(self, history: bytes, request: PlannedRequest, text: str | None) -> bytes:
        """The history of a conversation after one more turn and its answer."""


class InFlightTasks:
    """The tasks of a cell.

    Their failures are errors of ours, since a request's own are in its record: the first one is raised by `until`.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Start one more."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def until(self, pacer: Pacer, due_ns: int) -> None:
        """Wait for a monotonic time [ns]; raises the first failure of a task."""
        sleep = asyncio.ensure_future(pacer.sleep_until(due_ns))
        try:
            await asyncio.wait({sleep, self._failed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
        if self._failed.done():
            self._failed.result()

    async def drain(self, drain_s: float) -> None:
        """Wait for what is under way, at most that long; what is left then is cut off.

        Raises:
            Exception: the first failure of a task.
        """
        try:
            if self._tasks and drain_s > 0:
                await asyncio.wait(self._tasks, timeout=drain_s)
        finally:
            await self.cut_off()
        if self._failed.done():
            self._failed.result()

    async def cut_off(self) -> None:
        """Cancel what is under way and wait for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)


CELL_OVER = "the cell had ended before this turn was due"
TURN_FAILED = "the turn before it failed"
TURN_CUT_OFF = "the turn before it was cut off at the end of the drain"


async def send_conversation(
    turns: Sequence[PlannedRequest], due_ns: int, pacer: Pacer, sender: Sender, end_ns: int, *, keep_history: bool
) -> tuple[int, bool]:
    """Send a conversation's turns.

    The first turn is due at `due_ns`, which has come; each later one `think_ns` after the answer to the one before has
    ended. No turn is sent once the cell is over, nor after one that failed: what was left is recorded as skipped.

    Args:
        turns: in their order; a single request is a conversation of one turn.
        due_ns: when the first was due, monotonic.
        pacer: wakes at the times of later turns.
        sender: sends them.
        end_ns: when the cell ends.
        keep_history: send the turns and answers so far before each new turn.

    Returns:
        When the last turn sent had ended, and whether it went well.
    """
    history, ended_ns = b"", due_ns
    for index, request in enumerate(turns):
        if index:
            due_ns = ended_ns + (request.think_ns or 0)
            if due_ns >= end_ns:
                _skip(turns[index:], due_ns, sender, CELL_OVER)
                return ended_ns, True
            await pacer.sleep_until(due_ns)
        try:
            outcome = await sender.send(request, due_ns, history)
        except asyncio.CancelledError:
            _skip(turns[index + 1 :], due_ns, sender, TURN_CUT_OFF)
            raise
        ended_ns = outcome.record.end_ns or due_ns
        if outcome.record.status != "ok":
            _skip(turns[index + 1 :], ended_ns, sender, TURN_FAILED)
            return ended_ns, False
        if keep_history and index + 1 < len(turns):
            history = sender.extended(history, request, outcome.text)
    return ended_ns, True


def _skip(turns: Sequence[PlannedRequest], scheduled_ns: int, sender: Sender, reason: str) -> None:
    for request in turns:
        sender.skip(request, scheduled_ns, reason)


PAUSE_AFTER_FAILURE_NS = 200_000_000
"""How long a user waits at least after a failure, lest the loop spin on a server that refuses everything."""


async def run_closed_loop_user(
    conversations: Sequence[Sequence[PlannedRequest]],
    repeat: Callable[[Sequence[PlannedRequest]], Sequence[PlannedRequest]],
    pacer: Pacer,
    sender: Sender,
    *,
    start_ns: int,
    end_ns: int,
    keep_history: bool,
) -> None:
    """Send one user's conversations, which are mostly single requests, one after another until the cell ends.

    The first request is due `think_ns` after the cell's start, each later one `think_ns` after the end of the one
    before. What was sent once is sent again under new ids, the first then waiting as long as the second; what was never
    reached is a supply and leaves no record.

    Args:
        conversations: turns in order, not empty.
        repeat: a conversation to send again, with new ids.
        pacer: wakes at the times of requests.
        sender: sends them.
        start_ns: start of the cell, monotonic.
        end_ns: its end.
        keep_history: see `conversation.converse`.
    """
    ended_ns, went_well = start_ns, True
    for turns in _repeat_forever(conversations, repeat):
        pause_ns = turns[0].think_ns or 0
        due_ns = ended_ns + (pause_ns if went_well else max(pause_ns, PAUSE_AFTER_FAILURE_NS))
        if max(due_ns, time.monotonic_ns()) >= end_ns:
            return
        await pacer.sleep_until(due_ns)
        ended_ns, went_well = await send_conversation(turns, due_ns, pacer, sender, end_ns, keep_history=keep_history)


def _repeat_forever(
    conversations: Sequence[Sequence[PlannedRequest]],
    repeat: Callable[[Sequence[PlannedRequest]], Sequence[PlannedRequest]],
) -> Iterator[Sequence[PlannedRequest]]:
    yield from conversations
    # The first one's think time is the user's place in the staggered start, no pause: over again it waits as the next.
    pause_ns = conversations[min(1, len(conversations) - 1)][0].think_ns
    while True:
        for index, turns in enumerate(conversations):
            again = [*repeat(turns)]
            yield again if index else [replace(again[0], think_ns=pause_ns), *again[1:]]


class OpenLoop:
    """Starts conversations, which are mostly single requests, at their arrivals.

    Args:
        conversations: turns in order; the first turn of each has an arrival, and they are in order of it.
        start_ns, end_ns: of the cell, monotonic; an arrival after the end is recorded as skipped.
        keep_history: see `conversation.converse`.
    """

    def __init__(
        self,
        conversations: Sequence[Sequence[PlannedRequest]],
        pacer: Pacer,
        sender: Sender,
        underway: InFlightTasks,
        *,
        start_ns: int,
        end_ns: int,
        keep_history: bool,
    ) -> None:
        self._conversations = conversations
        self._pacer = pacer
        self._sender = sender
        self._underway = underway
        self._start_ns = start_ns
        self._end_ns = end_ns
        self._keep_history = keep_history
        self._next = 0

    def start(self) -> None:
        """Have the first released at its time, and each following one."""
        self._await_next()

    def offered(self) -> int:
        """Conversations that have been due so far."""
        return self._next

    def _await_next(self) -> None:
        if self._next >= len(self._conversations):
            return
        due_ns = self._due_ns()
        if due_ns < self._end_ns:
            self._pacer.call_at(due_ns, self._release)
            return
        for turns in self._conversations[self._next :]:
            for request in turns:
                self._sender.skip(request, due_ns, CELL_OVER)
        self._next = len(self._conversations)

    def _due_ns(self) -> int:
        return self._start_ns + (self._conversations[self._next][0].arrival_ns or 0)

    def _release(self) -> None:
        """Start all that is due."""
        while self._next < len(self._conversations):
            due_ns = self._due_ns()
            if due_ns > time.monotonic_ns() or due_ns >= self._end_ns:
                break
            turns = self._conversations[self._next]
            self._next += 1
            if len(turns) == 1:
                self._underway.start(self._sender.send(turns[0], due_ns))
            else:
                self._underway.start(
                    send_conversation(
                        turns, due_ns, self._pacer, self._sender, self._end_ns, keep_history=self._keep_history
                    )
                )
        self._await_next()


Conversations = Sequence[Sequence[PlannedRequest]]


@dataclass(frozen=True, slots=True)
class CellTimes:
    """When a cell sent requests, and when the last one in flight had ended or was cut off; monotonic ns."""

    start_ns: int
    end_ns: int
    drained_ns: int


@dataclass(slots=True)
class CellLoad:
    """What one process sends in a cell.

    Attributes:
        arrivals: conversations of an open loop, in order of the arrival of their first turn.
        users: for each user of a closed loop its conversations, in its order.
    """

    arrivals: list[list[PlannedRequest]] = field(default_factory=list)
    users: dict[int, list[list[PlannedRequest]]] = field(default_factory=dict)


async def run_cell(
    load: CellLoad,
    pacer: Pacer,
    sender: Sender,
    repeater: RequestRepeater,
    *,
    start_ns: int,
    duration_s: float,
    drain_s: float,
    keep_history: bool,
) -> CellTimes:
    """Send a cell's requests from `start_ns` on for its duration, then wait for those in flight.

    Open loop and closed loop: see `open` and `closed`. Cancelled, it cuts off what is in flight before it ends.

    Args:
        load: what to send.
        pacer: wakes at the times of requests.
        sender: sends them.
        repeater: gives a closed loop's repeated requests their ids.
        start_ns: when the cell begins, monotonic; may lie ahead.
        duration_s: how long requests are sent.
        drain_s: after the cell's end, how long to wait for requests in flight; what is left is cut off and recorded.
        keep_history: see `conversation.converse`.

    Raises:
        Exception: an error of ours; what goes wrong with a request is in its record.
    """
    end_ns = start_ns + round(duration_s * 1e9)
    underway = InFlightTasks()
    try:
        OpenLoop(
            load.arrivals,
            pacer,
            sender,
            underway,
            start_ns=start_ns,
            end_ns=end_ns,
            keep_history=keep_history,
        ).start()
        for conversations in load.users.values():
            if conversations:
                underway.start(
                    run_closed_loop_user(
                        conversations,
                        repeater.repeat,
                        pacer,
                        sender,
                        start_ns=start_ns,
                        end_ns=end_ns,
                        keep_history=keep_history,
                    )
                )
        await underway.until(pacer, end_ns)
        await underway.drain(drain_s)
    except BaseException:
        await underway.cut_off()
        raise
    return CellTimes(start_ns, end_ns, max(end_ns, time.monotonic_ns()))
