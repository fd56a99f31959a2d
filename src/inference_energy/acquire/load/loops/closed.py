"""The closed loop: users who each send the next request when the answer to the last has ended."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from inference_energy.acquire.load.exchange.request import PlannedRequest
from inference_energy.acquire.load.loops.conversation import converse
from inference_energy.acquire.load.loops.sending import Sender
from inference_energy.acquire.load.pacer.pacer import Pacer

PAUSE_AFTER_FAILURE_NS = 200_000_000
"""How long a user waits at least after a failure, lest the loop spin on a server that refuses everything."""


async def run_user(
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
    for turns in _endless(conversations, repeat):
        pause_ns = turns[0].think_ns or 0
        due_ns = ended_ns + (pause_ns if went_well else max(pause_ns, PAUSE_AFTER_FAILURE_NS))
        if max(due_ns, time.monotonic_ns()) >= end_ns:
            return
        await pacer.sleep_until(due_ns)
        ended_ns, went_well = await converse(turns, due_ns, pacer, sender, end_ns, keep_history=keep_history)


def _endless(
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
