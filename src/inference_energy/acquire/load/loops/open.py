"""The open loop: each request at its arrival, whatever the server does."""

import time
from collections.abc import Sequence

from inference_energy.acquire.load.exchange.request import PlannedRequest
from inference_energy.acquire.load.loops.conversation import CELL_OVER, converse
from inference_energy.acquire.load.loops.sending import Sender, Underway
from inference_energy.acquire.load.pacer.pacer import Pacer


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
        underway: Underway,
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
                    converse(turns, due_ns, self._pacer, self._sender, self._end_ns, keep_history=self._keep_history)
                )
        self._await_next()
