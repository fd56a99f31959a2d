"""One cell of load: sent at its times or by its users until its end, then drained.

In an open loop each conversation starts at its arrival, whatever the server does. In a closed loop each user starts the
next conversation when the last one has ended. The turns of a conversation follow in order, each some time after the
answer to the one before; a single request is a conversation of one turn.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from inference_energy.acquire.load.http.client import LoadClient, RequestResult
from inference_energy.acquire.load.http.request import PlannedRequest, assistant_message
from inference_energy.acquire.load.pacer import Pacer
from inference_energy.acquire.load.request_log import RequestLogger
from inference_energy.acquire.load.worker_messages import CellTimes
from inference_energy.contracts.load_client import WorkloadSettings
from inference_energy.contracts.requests import RequestRecord

Conversation = Sequence[PlannedRequest]
"""Turns in their order, at least one."""

CELL_OVER = "the cell had ended before this turn was due"
TURN_FAILED = "the turn before it failed"
TURN_CUT_OFF = "the turn before it was cut off at the end of the drain"

PAUSE_AFTER_FAILURE_NS = 200_000_000
"""Minimum pause after a failed request, so that a user does not spin on a server that rejects everything."""


@dataclass(slots=True)
class CellLoad:
    """The requests that one process sends in a cell.

    Attributes:
        arrivals: conversations of an open loop, in order of the arrival of their first turn.
        users: for each user of a closed loop its conversations, in its order.
    """

    arrivals: list[list[PlannedRequest]] = field(default_factory=list)
    users: dict[int, list[list[PlannedRequest]]] = field(default_factory=dict)


class RequestSender:
    """Sends a cell's requests with the client, and records those that are not sent.

    Args:
        client: an open client, observed by `log`.
        workload: the cell's.
        log: counts what is offered, and records skipped requests.
        worker: number of this process.
    """

    def __init__(self, client: LoadClient, workload: WorkloadSettings, log: RequestLogger, worker: int) -> None:
        self._client = client
        self._workload = workload
        self._log = log
        self._worker = worker

    async def send(self, request: PlannedRequest, scheduled_ns: int, history: bytes = b"") -> RequestResult:
        """Send one request and wait for its end; failures are in the record, only cancellation is passed on."""
        self._log.counts.offered += 1
        return await self._client.send(request, self._workload, scheduled_ns, self._worker, history)

    def skip(self, request: PlannedRequest, scheduled_ns: int, reason: str) -> None:
        """Record that a request is not sent, and why."""
        record = RequestRecord(
            request_id=request.request_id,
            cell=request.cell,
            worker=self._worker,
            endpoint="",
            prompt_id=request.prompt_id,
            turn=request.turn,
            scheduled_ns=scheduled_ns,
            status="skipped",
            error=reason,
            conversation=request.conversation,
            user=request.user,
        )
        self._log.ended(record, None)

    def extended(self, history: bytes, request: PlannedRequest, text: str | None) -> bytes:
        """Return the history of a conversation after one more turn and its answer."""
        parts = [history, request.prompt, assistant_message(text or "")]
        return b",".join(part for part in parts if part)


class RequestRepeater:
    """Gives repeated requests their ids: unique over all workers, and none of the schedule's.

    Args:
        first_id: the first id that the schedule does not use.
        worker: number of this process.
        workers: number of processes.

    Attributes:
        salt: whether repeats are sent under a cache salt; may be changed between cells.
    """

    def __init__(self, first_id: int, worker: int, workers: int, *, salt: bool = True) -> None:
        self._next_id = first_id + worker
        self._step = workers
        self.salt = salt

    def repeat(self, turns: Conversation) -> list[PlannedRequest]:
        """Return a conversation's turns, to be sent once more."""
        repeated = []
        for request in turns:
            repeated.append(replace(request, request_id=self._next_id, salt=request.salt or self.salt))
            self._next_id += self._step
        return repeated

    def repeat_forever(self, conversations: Sequence[Conversation]) -> Iterator[Conversation]:
        """Yield a user's conversations, then the same ones again and again under new ids."""
        yield from conversations
        # The first one's think time is the user's place in the staggered start, no pause: repeated, it waits as the
        # next does.
        pause_ns = conversations[min(1, len(conversations) - 1)][0].think_ns
        while True:
            for index, turns in enumerate(conversations):
                repeated = self.repeat(turns)
                yield repeated if index else [replace(repeated[0], think_ns=pause_ns), *repeated[1:]]


class InFlightTasks:
    """The tasks of a cell.

    A failed request is in its record, so a task that fails is our own error: `wait_until` and `drain` raise the first.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Start one more."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def wait_until(self, due_ns: int, pacer: Pacer) -> None:
        """Wait for a monotonic time [ns].

        Raises:
            Exception: the first failure of a task.
        """
        sleep = asyncio.ensure_future(pacer.sleep_until(due_ns))
        try:
            await asyncio.wait({sleep, self._failed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
        self._raise_failure()

    async def drain(self, drain_s: float) -> None:
        """Wait for the tasks, at most `drain_s`; then cut off the rest.

        Raises:
            Exception: the first failure of a task.
        """
        try:
            if self._tasks and drain_s > 0:
                await asyncio.wait(self._tasks, timeout=drain_s)
        finally:
            await self.cut_off()
        self._raise_failure()

    async def cut_off(self) -> None:
        """Cancel the tasks and wait for their end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _raise_failure(self) -> None:
        if self._failed.done():
            self._failed.result()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)


async def run_cell(
    load: CellLoad,
    pacer: Pacer,
    sender: RequestSender,
    repeater: RequestRepeater,
    *,
    start_ns: int,
    duration_s: float,
    drain_s: float,
    keep_history: bool,
) -> CellTimes:
    """Send a cell's requests from `start_ns` on for its duration, then wait for those in flight.

    Cancelled, it cuts off the requests in flight before it ends.

    Args:
        load: the requests.
        pacer: wakes at the times of requests.
        sender: sends them.
        repeater: gives a closed loop's repeated requests their ids.
        start_ns: when the cell begins, monotonic; may be in the future.
        duration_s: how long requests are sent.
        drain_s: after the cell's end, how long to wait for requests in flight; the rest is cut off and recorded.
        keep_history: send the turns and answers so far before each new turn of a conversation.

    Raises:
        Exception: our own error; failures of requests are in their records.
    """
    end_ns = start_ns + round(duration_s * 1e9)
    tasks = InFlightTasks()
    turns = _ConversationSender(pacer, sender, end_ns, keep_history)
    try:
        _OpenLoop(load.arrivals, turns, tasks, start_ns).start()
        for conversations in load.users.values():
            if conversations:
                tasks.start(_run_closed_loop_user(repeater.repeat_forever(conversations), turns, start_ns))
        await tasks.wait_until(end_ns, pacer)
        await tasks.drain(drain_s)
    except BaseException:
        await tasks.cut_off()
        raise
    return CellTimes(start_ns, end_ns, max(end_ns, time.monotonic_ns()))


@dataclass(frozen=True, slots=True)
class _ConversationSender:
    """Sends conversations until the cell's end."""

    pacer: Pacer
    sender: RequestSender
    end_ns: int
    keep_history: bool

    async def send(self, turns: Conversation, due_ns: int) -> tuple[int, bool]:
        """Send a conversation's turns.

        The first turn is due at `due_ns`, which has come; each later one `think_ns` after the answer to the one before
        has ended. No turn is sent once the cell is over, nor after one that failed: the rest is recorded as skipped.

        Returns:
            When the last turn sent had ended, and whether it succeeded.
        """
        history, ended_ns = b"", due_ns
        for index, request in enumerate(turns):
            if index:
                due_ns = ended_ns + (request.think_ns or 0)
                if due_ns >= self.end_ns:
                    self.skip(turns[index:], due_ns, CELL_OVER)
                    return ended_ns, True
                await self.pacer.sleep_until(due_ns)
            try:
                result = await self.sender.send(request, due_ns, history)
            except asyncio.CancelledError:
                self.skip(turns[index + 1 :], due_ns, TURN_CUT_OFF)
                raise
            ended_ns = result.record.end_ns or due_ns
            if result.record.status != "ok":
                self.skip(turns[index + 1 :], ended_ns, TURN_FAILED)
                return ended_ns, False
            if self.keep_history and index + 1 < len(turns):
                history = self.sender.extended(history, request, result.text)
        return ended_ns, True

    def skip(self, turns: Conversation, scheduled_ns: int, reason: str) -> None:
        """Record that turns are not sent."""
        for request in turns:
            self.sender.skip(request, scheduled_ns, reason)


class _OpenLoop:
    """Starts conversations at their arrivals; an arrival after the cell's end is recorded as skipped.

    Args:
        conversations: each begins with a turn that has an arrival, and they are in order of it.
        sender: sends them.
        tasks: take the conversations.
        start_ns: of the cell, monotonic.
    """

    def __init__(
        self, conversations: Sequence[Conversation], sender: _ConversationSender, tasks: InFlightTasks, start_ns: int
    ) -> None:
        self._conversations = conversations
        self._sender = sender
        self._tasks = tasks
        self._start_ns = start_ns
        self._next = 0

    def start(self) -> None:
        """Have the next one released at its time, and each following one."""
        if self._next >= len(self._conversations):
            return
        due_ns = self._due_ns()
        if due_ns < self._sender.end_ns:
            self._sender.pacer.call_at(due_ns, self._release)
            return
        for turns in self._conversations[self._next :]:
            self._sender.skip(turns, due_ns, CELL_OVER)
        self._next = len(self._conversations)

    def _due_ns(self) -> int:
        return self._start_ns + (self._conversations[self._next][0].arrival_ns or 0)

    def _release(self) -> None:
        """Start all conversations that are due."""
        while self._next < len(self._conversations):
            due_ns = self._due_ns()
            if due_ns > time.monotonic_ns() or due_ns >= self._sender.end_ns:
                break
            turns = self._conversations[self._next]
            self._next += 1
            # A single request needs no bookkeeping of turns.
            single = len(turns) == 1
            self._tasks.start(
                self._sender.sender.send(turns[0], due_ns) if single else self._sender.send(turns, due_ns)
            )
        self.start()


async def _run_closed_loop_user(
    conversations: Iterator[Conversation], sender: _ConversationSender, start_ns: int
) -> None:
    """Send one user's conversations one after another until the cell ends.

    The first request is due `think_ns` after the cell's start, each later one `think_ns` after the end of the one
    before. A conversation that is never reached leaves no record: a user's conversations are a supply.
    """
    ended_ns, succeeded = start_ns, True
    for turns in conversations:
        pause_ns = turns[0].think_ns or 0
        due_ns = ended_ns + (pause_ns if succeeded else max(pause_ns, PAUSE_AFTER_FAILURE_NS))
        if max(due_ns, time.monotonic_ns()) >= sender.end_ns:
            return
        await sender.pacer.sleep_until(due_ns)
        ended_ns, succeeded = await sender.send(turns, due_ns)
