"""What the loops are given to send with, and the group of what they have under way."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from inference_energy.acquire.load.exchange.client import Outcome
from inference_energy.acquire.load.exchange.request import PlannedRequest
from inference_energy.acquire.load.pacer.pacer import Pacer


class Sender(Protocol):
    """Sends a cell's requests."""

    async def send(self, request: PlannedRequest, scheduled_ns: int, history: bytes = b"") -> Outcome:
        """Send one request and wait for its end; failures are in the record, only cancellation is passed on."""

    def skip(self, request: PlannedRequest, scheduled_ns: int, reason: str) -> None:
        """Record that a request is not sent, and why."""

    def extended(self, history: bytes, request: PlannedRequest, text: str | None) -> bytes:
        """The history of a conversation after one more turn and its answer."""


class Underway:
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
