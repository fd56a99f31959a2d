"""Faults on demand: which request meets which, and what becomes of the server."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Literal

from inference_energy.bench.parts.faults import ServerFaults

Fate = Literal["error 500", "crash", "disconnect", "error event", "stall"]
MESSAGE = "A simulated failure, as this node's faults ask for."


def crash() -> None:
    """End this process as a crash does: at once, with nothing said."""
    os.kill(os.getpid(), signal.SIGKILL)


class Fates:
    """Counts requests and says what goes wrong with each.

    Args:
        faults: the node's.
    """

    def __init__(self, faults: ServerFaults) -> None:
        self.faults = faults
        self._count = 0

    def next(self) -> Fate | None:
        """What happens to the next request; of several faults the first of the list in `Fate`."""
        self._count += 1
        number, faults = self._count, self.faults
        chances: list[tuple[Fate, bool]] = [
            ("error 500", _each(faults.error_500_every, number)),
            ("crash", faults.crash_at_request == number),
            ("disconnect", _each(faults.disconnect_every, number)),
            ("error event", _each(faults.error_event_every, number)),
            ("stall", _each(faults.stall_every, number)),
        ]
        return next((fate for fate, met in chances if met), None)

    def schedule(self, loop: asyncio.AbstractEventLoop, hang: Callable[[], None]) -> None:
        """From now on, for the server listens: the end that comes by itself."""
        if self.faults.crash_after_s is not None:
            loop.call_later(self.faults.crash_after_s, crash)
        if self.faults.hang_after_s is not None:
            loop.call_later(self.faults.hang_after_s, hang)


def _each(every: int | None, number: int) -> bool:
    return every is not None and number % every == 0
