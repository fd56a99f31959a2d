"""One conversation: its turns in order, each some time after the answer to the one before."""

import asyncio
from collections.abc import Sequence

from inference_energy.acquire.load.exchange.request import PlannedRequest
from inference_energy.acquire.load.loops.sending import Sender
from inference_energy.acquire.load.pacer.pacer import Pacer

CELL_OVER = "the cell had ended before this turn was due"
TURN_FAILED = "the turn before it failed"
TURN_CUT_OFF = "the turn before it was cut off at the end of the drain"


async def converse(
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
