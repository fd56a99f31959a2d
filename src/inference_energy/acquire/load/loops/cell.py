"""One cell of load: sent at its times or by its users until its end, then drained."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from inference_energy.acquire.load.exchange.request import PlannedRequest
from inference_energy.acquire.load.loops.closed import run_user
from inference_energy.acquire.load.loops.open import OpenLoop
from inference_energy.acquire.load.loops.repeat import Repeater
from inference_energy.acquire.load.loops.sending import Sender, Underway
from inference_energy.acquire.load.pacer.pacer import Pacer

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
    repeater: Repeater,
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
    underway = Underway()
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
                    run_user(
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
