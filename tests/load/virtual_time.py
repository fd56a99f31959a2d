"""A clock that stands still while code runs, and jumps to the next time something waits for."""

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar
from unittest import mock

from inference_energy.acquire.load.http.client import RequestResult
from inference_energy.acquire.load.http.request import PlannedRequest, RequestRecord
from inference_energy.acquire.load.loops import CellLoad, RequestRepeater, run_cell
from inference_energy.acquire.load.pacer import Pacer

Result = TypeVar("Result")

BEGIN_NS = 1_000_000_000


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on such a clock."""

    def __init__(self) -> None:
        self.now_ns = BEGIN_NS
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now_ns / 1e9

    def monotonic_ns(self) -> int:
        return self.now_ns


class _Selector(selectors.SelectSelector):
    """Nothing comes from outside, so a wait is over at once."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits, and for nothing"
        self._loop.now_ns += max(0, round(timeout * 1e9))
        return []


class HastyLoop(VirtualLoop):
    """A loop whose timers come before their time, as those of loops that count in milliseconds can."""

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return super().call_later(delay / 2 if delay > 1e-6 else delay, callback, *args, context=context)


def run_virtually(work: Coroutine[Any, Any, Result], kind: type[VirtualLoop] = VirtualLoop) -> Result:
    """Run a coroutine to its end on a clock of its own, which `time.monotonic_ns` and `time.monotonic` show."""
    loop = kind()
    with (
        mock.patch.object(time, "monotonic_ns", loop.monotonic_ns),
        mock.patch.object(time, "monotonic", loop.time),
        asyncio.Runner(loop_factory=lambda: loop) as runner,
    ):
        return runner.run(work)


class _Noting:
    """A sender that notes when each request was sent, and has its answer at once."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []

    async def send(self, request: PlannedRequest, scheduled_ns: int, history: bytes = b"") -> RequestResult:
        self.sent.append((request.request_id, time.monotonic_ns()))
        return RequestResult(
            RequestRecord(request.request_id, request.cell, 0, "e", 0, None, scheduled_ns, status="ok"), None
        )

    def skip(self, request: PlannedRequest, scheduled_ns: int, reason: str) -> None:
        raise AssertionError(f"request {request.request_id} was not sent: {reason}")

    def extended(self, history: bytes, request: PlannedRequest, text: str | None) -> bytes:
        return history


def sent_virtually(load: CellLoad, duration_s: float) -> list[tuple[int, int]]:
    """What one load process sends: request ids, and times from the cell's start [ns]."""
    sender = _Noting()

    async def send() -> int:
        pacer = Pacer(kernel=False)
        start_ns = time.monotonic_ns() + 100_000_000
        repeater = RequestRepeater(1 << 40, 0, 1)
        await run_cell(
            load, pacer, sender, repeater, start_ns=start_ns, duration_s=duration_s, drain_s=1.0, keep_history=False
        )
        pacer.close()
        return start_ns

    start_ns = run_virtually(send())
    return [(number, sent_ns - start_ns) for number, sent_ns in sender.sent]
