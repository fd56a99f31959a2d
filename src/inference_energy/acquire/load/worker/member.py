"""One load process as its parent sees it."""

import asyncio
import json
import os
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference_energy.acquire.load.live import LiveCounts
from inference_energy.errors import InputError, RunError

if TYPE_CHECKING:
    # Whoever starts a module by its name imports it too: the digest of a measurement follows imports.
    from inference_energy.acquire.load.worker import main  # noqa: F401

MODULE = "inference_energy.acquire.load.worker.main"

# Its events are short; only the counts of a cell's end with a long error could be longer than asyncio's default.
LINE_LIMIT = 1 << 20


class Member:
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
