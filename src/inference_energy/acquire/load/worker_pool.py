"""The pool of load processes: started together, sent a cell at a time, and ended together, by their parent.

The parent imports no Arrow: it stays in memory while load is sent.
"""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.acquire.load.settings import LoadSpec
from inference_energy.acquire.load.worker_messages import (
    CellTimes,
    Done,
    Ended,
    EndProcess,
    Order,
    Ready,
    RunCell,
    Stats,
    StopCell,
    WorkerEvent,
)
from inference_energy.contracts.child_process import ChildProcess, Event, python_module
from inference_energy.contracts.documents.session import LoadCell, LoadClient, LoadWorker
from inference_energy.errors import RunError

MODULE = "inference_energy.acquire.load.worker_main"

Result = TypeVar("Result")
Expected = TypeVar("Expected", Ready, Done, Ended)

START_TIMEOUT_S = 120.0
"""Time to read the plan: a million long prompts take a while."""
START_LEAD_NS = 100_000_000
"""Lead time between the start order and the cell's start, so that all workers receive it in time."""
STOP_TIMEOUT_S = 10.0
SPEC_NAME = "load.json"
LOGS = "*-[0-9]*.arrows"
"""The logs of all workers, see `request_log`."""


class WorkerHandle:
    """A load process as its parent sees it: takes orders and reports events.

    Args:
        spec: the load, a file.
        number: number of the process, from 0.
        name: its name in errors.

    Attributes:
        counts: of the current cell, at most a quarter second old.
    """

    def __init__(self, spec: Path, number: int, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._gone = False
        self._child = ChildProcess(
            python_module(MODULE, str(spec), str(number)),
            name=name,
            on_event=lambda event: self._in_loop(self._on_event, event),
            on_exit=lambda: self._in_loop(self._on_exit),
            # The system's allocator gives back the memory that reading the plan took.
            environment={"ARROW_DEFAULT_MEMORY_POOL": os.environ.get("ARROW_DEFAULT_MEMORY_POOL", "system")},
        )
        self._events: dict[type, Ready | Done | Ended] = {}
        self.counts = LiveCounts()

    @property
    def pid(self) -> int | None:
        """The process, once started."""
        return self._child.pid

    def start(self) -> None:
        """Start the process; `Ready` comes later."""
        self._child.start()

    def send(self, order: Order) -> None:
        """Send an order; it is lost if the process is gone, which `expect` reports."""
        if isinstance(order, RunCell):
            self._events.pop(Done, None)
            self.counts = LiveCounts()
        self._child.send(msgspec.to_builtins(order))

    async def expect(self, kind: type[Expected]) -> Expected:
        """Return the event of a kind, once it has come.

        Raises:
            InputError: the process ended because of a setting or the plan.
            RunError: it ended or died; the message holds its last words.
        """
        while not isinstance(event := self._events.get(kind), kind):
            if self._gone:
                raise self._child.error(f"{self._child.name}: ")
            self._changed.clear()
            await self._changed.wait()
        return event

    async def close(self, timeout_s: float) -> None:
        """Close the worker's standard input so that it exits; kill it after a timeout."""
        if self._child.started:
            await asyncio.to_thread(self._child.end, timeout_s)

    def _in_loop(self, callback: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _on_exit(self) -> None:
        self._gone = True
        self._changed.set()

    def _on_event(self, content: Event) -> None:
        if content["event"] == "failed":  # `ChildProcess` keeps it
            return
        event = msgspec.convert(content, WorkerEvent, str_keys=True)
        if isinstance(event, Stats | Done):
            self.counts = event.counts
        if not isinstance(event, Stats):
            self._events[type(event)] = event
        self._changed.set()


class WorkerPool:
    """The processes that send a load; an async context manager.

    At the end of the block the processes are gone. Their logs are in the load's folder, also after a failure; see
    `request_log`.

    Args:
        spec: the load. Its folder is made, and logs of an earlier run in it are removed.
    """

    def __init__(self, spec: LoadSpec) -> None:
        self.spec = spec
        self._workers: list[WorkerHandle] = []
        self._begun_s = 0.0
        self._cells: dict[str, LoadCell] = {}

    @property
    def counts(self) -> LiveCounts:
        """The counts of the current or the last cell, over all processes."""
        return LiveCounts.total(worker.counts for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    async def __aenter__(self) -> Self:
        """Start the processes and wait until each has read its part of the plan.

        Raises:
            InputError: the plan or the settings cannot be used.
            RunError: a process died or did not come up.
        """
        folder = Path(self.spec.folder)
        folder.mkdir(parents=True, exist_ok=True)
        remove_logs(folder)
        path = folder / SPEC_NAME
        self.spec.write(path)
        self._begun_s = time.monotonic()
        count = self.spec.workers
        self._workers = [
            WorkerHandle(path, number, "the load process" if count == 1 else f"load process {number + 1} of {count}")
            for number in range(count)
        ]
        try:
            for worker in self._workers:
                worker.start()
            async with asyncio.timeout(START_TIMEOUT_S):
                await _all(worker.expect(Ready) for worker in self._workers)
        except TimeoutError:
            await self._close()
            raise RunError(f"the load processes were not ready within {START_TIMEOUT_S:g} s") from None
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def run_cell(self, name: str) -> CellTimes:
        """Have every process send its part of a cell, from a common start on, and wait for the end of the drain.

        Cancelled, it has the requests in flight cut off and logged before it ends.

        Raises:
            RunError: a process died; the others have stopped then.
        """
        start_ns = time.monotonic_ns() + START_LEAD_NS
        for worker in self._workers:
            worker.send(RunCell(name, start_ns))
        try:
            done = await _all(worker.expect(Done) for worker in self._workers)
        except BaseException:
            await self._stop(name)
            raise
        drained_ns = [event.drained_ns for event in done if event.drained_ns is not None]
        end_ns = done[0].end_ns
        if end_ns is None or len(drained_ns) < len(done):
            raise RunError(f"{name}: a load process was told to stop")
        self._note(name, done)
        return CellTimes(start_ns, end_ns, max(drained_ns))

    async def finish(self) -> LoadClient:
        """End the processes in order; return what they took.

        Raises:
            RunError: a process died.
        """
        for worker in self._workers:
            worker.send(EndProcess())
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                ready = await _all(worker.expect(Ready) for worker in self._workers)
                ended = await _all(worker.expect(Ended) for worker in self._workers)
        except TimeoutError:
            raise RunError(f"the load processes did not end within {STOP_TIMEOUT_S:g} s") from None
        await self._close()
        return LoadClient(
            workers=[
                LoadWorker(
                    cpu_s=last.cpu_s,
                    wall_s=last.wall_s,
                    peak_rss_bytes=last.peak_rss_bytes,
                    lateness=last.lateness,
                    startup_cpu_s=first.cpu_s,
                    worker=number,
                )
                for number, (first, last) in enumerate(zip(ready, ended, strict=True))
            ],
            cells=self._cells,
            cpu_s=sum(event.cpu_s for event in ended),
            wall_s=time.monotonic() - self._begun_s,
        )

    async def _stop(self, name: str) -> None:
        """End the current cell in all processes that are left."""
        for worker in self._workers:
            worker.send(StopCell())
        waits = [asyncio.ensure_future(worker.expect(Done)) for worker in self._workers]
        await asyncio.wait(waits, timeout=STOP_TIMEOUT_S)
        for wait in waits:
            wait.cancel()
        ended = await asyncio.gather(*waits, return_exceptions=True)
        done = [event for event in ended if isinstance(event, Done)]
        if len(done) == len(self._workers):
            self._note(name, done)

    def _note(self, name: str, done: Sequence[Done]) -> None:
        """Note what a cell took, and how many requests its log must have."""
        self._cells[name] = LoadCell(
            cpu_s=sum(event.cpu_s for event in done),
            lateness=[event.lateness for event in done],
            requests=sum(event.counts.logged for event in done),
        )

    async def _close(self) -> None:
        await asyncio.gather(*(worker.close(STOP_TIMEOUT_S) for worker in self._workers))


def remove_logs(folder: Path) -> None:
    """Remove the logs of an earlier run, which perhaps had more processes."""
    for log in folder.glob(LOGS):
        log.unlink()


async def _all(waits: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Return all results, or raise the first failure, with the rest cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
