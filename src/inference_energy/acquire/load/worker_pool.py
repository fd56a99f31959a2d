"""One load process as its parent sees it.

One load process as its parent sees it.

The team of load processes: started together, a cell at a time, listened to, ended.
"""

import asyncio
import json
import os
import sys
import time
from collections import deque
from collections.abc import Coroutine, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from inference_energy.acquire.load.live_counts import CellTimes, LiveCounts
from inference_energy.acquire.load.settings import LoadSpec
from inference_energy.errors import InputError, RunError

MODULE = "inference_energy.acquire.load.worker_main"

if TYPE_CHECKING:
    # The digest of the code sees imports, not names in strings.
    from inference_energy.acquire.load import worker_main  # noqa: F401

# Its events are short; only the counts of a cell's end with a long error could be longer than asyncio's default.
LINE_LIMIT = 1 << 20


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
        self._spec = spec
        self._number = number
        self._name = name
        self._process: asyncio.subprocess.Process | None = None
        self._stderr: deque[str] = deque(maxlen=20)
        self._supervised: asyncio.Task[None] | None = None
        self._gone = False
        self._failure: dict[str, Any] | None = None
        self._happened = asyncio.Event()
        self.counts = LiveCounts()
        self.ready: dict[str, Any] | None = None
        self.done: dict[str, Any] | None = None
        self.ended: dict[str, Any] | None = None

    @property
    def pid(self) -> int | None:
        """The process, once started."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the process; `ready` comes later."""
        # Its own session: a Ctrl-C at the terminal is for the parent, which then stops the process in order. The
        # system's allocator gives back what reading the plan took.
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", MODULE, str(self._spec), str(self._number)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            start_new_session=True,
            env={"ARROW_DEFAULT_MEMORY_POOL": "system", **os.environ},
        )
        self._supervised = asyncio.create_task(self._supervise())

    def order(self, do: str, **facts: Any) -> None:
        """Give an order; lost if the process is gone, which `wait_for` tells."""
        process = self._started()
        if process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write((json.dumps({"do": do, **facts}) + "\n").encode())

    async def wait_for(self, event: str) -> dict[str, Any]:
        """The facts of an event, `ready`, `done` or `ended`, once it has come.

        Raises:
            InputError: the process ended since it was told what cannot be done.
            RunError: it ended or died; the message holds its last words.
        """
        while (facts := getattr(self, event)) is None:
            if self._gone:
                self._raise_failure()
            self._happened.clear()
            await self._happened.wait()
        return dict(facts)

    async def end(self, timeout_s: float) -> None:
        """Close its standard input, upon which it ends; kill it if it does not."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), timeout_s)
        except TimeoutError:
            self.kill()
            await self._process.wait()
        if self._supervised is not None:
            await self._supervised

    def kill(self) -> None:
        """Kill the process."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the load worker was never started")
        return self._process

    async def _supervise(self) -> None:
        """Listen until the process is gone."""
        process = self._started()
        assert process.stdout is not None and process.stderr is not None
        await asyncio.gather(self._follow(process.stdout), self._keep_words(process.stderr))
        await process.wait()
        self._gone = True
        self._happened.set()

    async def _follow(self, stdout: asyncio.StreamReader) -> None:
        async for line in stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # cut off by its death
            kind = event.pop("event")
            if kind in ("stats", "done"):
                self.counts = LiveCounts.from_dict(event["counts"] if kind == "done" else event)
            if kind in ("ready", "done", "ended"):
                setattr(self, kind, event)
            elif kind == "failed":
                self._failure = event
            self._happened.set()

    async def _keep_words(self, stderr: asyncio.StreamReader) -> None:
        async for line in stderr:
            self._stderr.append(line.decode(errors="replace"))

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise (InputError if self._failure["code"] == 2 else RunError)(f"{self._name}: {self._failure['message']}")
        code, words = self._started().returncode, "".join(self._stderr).strip()
        raise RunError(f"{self._name} died with exit code {code}{f': {words}' if words else ''}")


Result = TypeVar("Result")

START_TIMEOUT_S = 120.0
"""Reading a plan of a million long prompts takes its time."""
START_AHEAD_NS = 100_000_000
"""The start of a cell lies so far ahead of the order, so that every process has it in time."""
STOP_TIMEOUT_S = 10.0
SPEC_NAME = "load.json"
LOGS = "*-[0-9]*.arrows"
"""Logs of the workers, see `request_log`; that module is not imported here, for a parent needs no Arrow."""


def remove_logs(folder: Path) -> None:
    """Remove the logs of an earlier run, which perhaps had more processes."""
    for log in folder.glob(LOGS):
        log.unlink()


class WorkerPool:
    """The processes that send a load; an async context manager.

    At the end of the block the processes are gone. What they logged lies in the spec's folder whatever happens; see
    `log.merge`.

    Args:
        spec: what to send. Its folder is made, and logs of an earlier run in it are removed.
    """

    def __init__(self, spec: LoadSpec) -> None:
        self.spec = spec
        self._workers: list[WorkerHandle] = []
        self._begun_s = 0.0
        self._cells: dict[str, dict[str, Any]] = {}

    @property
    def counts(self) -> LiveCounts:
        """The counts of the cell under way, or of the last one, over all processes."""
        return LiveCounts.total(member.counts for member in self._workers)

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [member.pid for member in self._workers if member.pid is not None]

    async def __aenter__(self) -> Self:
        """Start the processes and wait until each has read its share.

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
            for member in self._workers:
                await member.start()
            async with asyncio.timeout(START_TIMEOUT_S):
                await _all(member.wait_for("ready") for member in self._workers)
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
        for member in self._workers:
            member.done, member.counts = None, LiveCounts()
        start_ns = time.monotonic_ns() + START_AHEAD_NS
        for member in self._workers:
            member.order("run", cell=name, start_ns=start_ns)
        try:
            done = await _all(member.wait_for("done") for member in self._workers)
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
        for member in self._workers:
            member.order("end")
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                ended = await _all(member.wait_for("ended") for member in self._workers)
        except TimeoutError:
            raise RunError(f"the load processes did not end within {STOP_TIMEOUT_S:g} s") from None
        workers = [
            {**facts, "startup_cpu_s": (member.ready or {}).get("cpu_s"), "worker": number}
            for number, (member, facts) in enumerate(zip(self._workers, ended, strict=True))
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
        for member in self._workers:
            member.order("stop")
        waits = [asyncio.ensure_future(member.wait_for("done")) for member in self._workers]
        await asyncio.wait(waits, timeout=STOP_TIMEOUT_S)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def _end(self) -> None:
        await asyncio.gather(*(member.end(STOP_TIMEOUT_S) for member in self._workers))


async def _all(waits: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All results, or the first failure, with the rest cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
