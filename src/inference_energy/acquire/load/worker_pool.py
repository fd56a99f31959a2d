"""One load process as its parent sees it.

One load process as its parent sees it.

The team of load processes: started together, a cell at a time, listened to, ended.
"""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.acquire.load.loops import CellTimes
from inference_energy.acquire.load.settings import LoadSpec, clear_logs
from inference_energy.contracts.child_process import ChildProcess, Event, python_module
from inference_energy.errors import RunError

MODULE = "inference_energy.acquire.load.worker_main"

if TYPE_CHECKING:
    # The digest of the code sees imports, not names in strings.
    from inference_energy.acquire.load import worker_main  # noqa: F401


class WorkerHandle:
    """A load process: started, given orders, listened to.

    Args:
        spec: the team's specification, a file.
        number: which process this is, from 0.
        name: what errors call it.

    Attributes:
        counts: of the cell under way, at most a quarter second old.
        ready, done, ended: the facts of these events, once they came.
    """

    def __init__(self, spec: Path, number: int, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._happened = asyncio.Event()
        self._gone = False
        self._child = ChildProcess(
            python_module(MODULE, str(spec), str(number)),
            name=name,
            on_event=lambda event: self._in_loop(self._take_event, event),
            on_exit=lambda: self._in_loop(self._take_exit),
            # The system's allocator gives back what reading the plan took.
            environment={"ARROW_DEFAULT_MEMORY_POOL": os.environ.get("ARROW_DEFAULT_MEMORY_POOL", "system")},
        )
        self.counts = LiveCounts()
        self.ready: dict[str, Any] | None = None
        self.done: dict[str, Any] | None = None
        self.ended: dict[str, Any] | None = None

    @property
    def pid(self) -> int | None:
        """The process, once started."""
        return self._child.pid

    def start(self) -> None:
        """Start the process; `ready` comes later."""
        self._child.start()

    def order(self, do: str, **facts: Any) -> None:
        """Give an order; lost if the process is gone, which `wait_for` tells."""
        self._child.send({"do": do, **facts})

    async def wait_for(self, event: str) -> dict[str, Any]:
        """The facts of an event, `ready`, `done` or `ended`, once it has come.

        Raises:
            InputError: the process ended since it was told what cannot be done.
            RunError: it ended or died; the message holds its last words.
        """
        while (facts := getattr(self, event)) is None:
            if self._gone:
                raise self._child.error(f"{self._child.name}: ")
            self._happened.clear()
            await self._happened.wait()
        return dict(facts)

    async def end(self, timeout_s: float) -> None:
        """Close the worker's standard input so that it exits; kill it after a timeout."""
        if self._child.started:
            await asyncio.to_thread(self._child.end, timeout_s)

    def _in_loop(self, take: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(take, *arguments)

    def _take_exit(self) -> None:
        self._gone = True
        self._happened.set()

    def _take_event(self, event: Event) -> None:
        kind = event.pop("event")
        if kind in ("stats", "done"):
            self.counts = LiveCounts.from_dict(event["counts"] if kind == "done" else event)
        if kind in ("ready", "done", "ended"):
            setattr(self, kind, event)
        self._happened.set()


Result = TypeVar("Result")

START_TIMEOUT_S = 120.0
"""Reading a plan of a million long prompts takes its time."""
START_AHEAD_NS = 100_000_000
"""The start of a cell lies so far ahead of the order, so that every process has it in time."""
STOP_TIMEOUT_S = 10.0
SPEC_NAME = "load.json"


class WorkerPool:
    """The processes that send a load; an async context manager.

    At the end of the block the processes are gone. What they logged lies in the spec's folder whatever happens; see
    `log.merge`.

    Args:
        spec: what to send. Its folder is made, and logs of an earlier run in it are removed.
    """

    def __init__(self, spec: LoadSpec) -> None:
        self.spec = spec
        self._members: list[WorkerHandle] = []
        self._begun_s = 0.0
        self._cells: dict[str, dict[str, Any]] = {}

    @property
    def live(self) -> LiveCounts:
        """The counts of the cell under way, or of the last one, over all processes."""
        return LiveCounts.total(member.counts for member in self._members)

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [member.pid for member in self._members if member.pid is not None]

    async def __aenter__(self) -> Self:
        """Start the processes and wait until each has read its share.

        Raises:
            InputError: the plan or the settings cannot be used.
            RunError: a process died or did not come up.
        """
        folder = Path(self.spec.folder)
        folder.mkdir(parents=True, exist_ok=True)
        clear_logs(folder)
        path = folder / SPEC_NAME
        self.spec.write(path)
        self._begun_s = time.monotonic()
        count = self.spec.workers
        self._members = [
            WorkerHandle(path, number, "the load process" if count == 1 else f"load process {number + 1} of {count}")
            for number in range(count)
        ]
        try:
            for member in self._members:
                member.start()
            async with asyncio.timeout(START_TIMEOUT_S):
                await _all(member.wait_for("ready") for member in self._members)
        except TimeoutError:
            await self._end()
            raise RunError(f"the load processes were not ready within {START_TIMEOUT_S:g} s") from None
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def run_cell(self, name: str) -> CellTimes:
        """Have every process send its share of a cell, from a common start on, and wait for the end of the drain.

        Cancelled, it has what is in flight cut off and logged before it ends.

        Raises:
            RunError: a process died; the others have stopped then.
        """
        for member in self._members:
            member.done, member.counts = None, LiveCounts()
        start_ns = time.monotonic_ns() + START_AHEAD_NS
        for member in self._members:
            member.order("run", cell=name, start_ns=start_ns)
        try:
            done = await _all(member.wait_for("done") for member in self._members)
        except BaseException:
            await self._stop()
            raise
        if any(facts["drained_ns"] is None for facts in done):
            raise RunError(f"{name}: a load process was told to stop")
        self._cells[name] = {
            "cpu_s": sum(facts["cpu_s"] for facts in done),
            "lateness": [facts["lateness"] for facts in done],
        }
        return CellTimes(start_ns, done[0]["end_ns"], max(facts["drained_ns"] for facts in done))

    async def finish(self) -> dict[str, Any]:
        """End the processes in order; returns what they took.

        Returns:
            `workers` (for each: `cpu_s`, of which `startup_cpu_s` before it was ready, `wall_s`, `peak_rss_bytes`,
            `lateness`: `p50_s`, `p99_s`, `max_s`), `cells` (for each: `cpu_s` and the workers' `lateness`), and the
            team's `cpu_s` and `wall_s`.

        Raises:
            RunError: a process died.
        """
        for member in self._members:
            member.order("end")
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                ended = await _all(member.wait_for("ended") for member in self._members)
        except TimeoutError:
            raise RunError(f"the load processes did not end within {STOP_TIMEOUT_S:g} s") from None
        workers = [
            {**facts, "startup_cpu_s": (member.ready or {}).get("cpu_s"), "worker": number}
            for number, (member, facts) in enumerate(zip(self._members, ended, strict=True))
        ]
        await self._end()
        return {
            "workers": workers,
            "cells": self._cells,
            "cpu_s": sum(facts["cpu_s"] for facts in ended),
            "wall_s": time.monotonic() - self._begun_s,
        }

    async def _stop(self) -> None:
        """End the cell under way in all processes that are left."""
        for member in self._members:
            member.order("stop")
        waits = [asyncio.ensure_future(member.wait_for("done")) for member in self._members]
        await asyncio.wait(waits, timeout=STOP_TIMEOUT_S)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def _end(self) -> None:
        await asyncio.gather(*(member.end(STOP_TIMEOUT_S) for member in self._members))


async def _all(waits: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All results, or the first failure, with the rest cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
