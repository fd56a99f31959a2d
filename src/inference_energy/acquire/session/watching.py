"""Waiting while everything that a measurement rests on is watched: the sampler, the server, Snakemake."""

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from inference_energy.acquire.power.process import SamplerProcess
from inference_energy.acquire.server.ancestors import WatchedProcess, snakemake_ancestors
from inference_energy.acquire.server.guardian import is_gone
from inference_energy.acquire.server.launch import RunningServer
from inference_energy.acquire.session.progress import Progress
from inference_energy.errors import RunError

Result = TypeVar("Result")
TICK_S = 0.25


class Watch:
    """Runs coroutines and ends them when the sampler dies, the server ends, or Snakemake is gone.

    Attributes:
        server: the one that we launched, while it must run.
        attached: the process of one that we did not launch, where it is known.
    """

    def __init__(self, progress: Progress, sampler: SamplerProcess) -> None:
        self._progress = progress
        self._sampler = sampler
        self._owners: tuple[WatchedProcess, ...] = snakemake_ancestors()
        self.server: RunningServer | None = None
        self.attached: WatchedProcess | None = None

    async def wait(self, duration_s: float) -> None:
        """Let time pass."""
        until_s = time.monotonic() + duration_s
        while (left_s := until_s - time.monotonic()) > 0:
            await asyncio.sleep(min(TICK_S, left_s))
            self._check()

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run one coroutine to its end; if something watched fails first, cancel it and raise.

        Raises:
            RunError: what failed, with the end of the server's log if it was the server.
        """
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=TICK_S)
                if not task.done():
                    self._check()
            return await task
        except BaseException:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise

    def _check(self) -> None:
        self._progress.tick()
        if not self._sampler.alive():
            raise RunError(f"the power sampler ended in the middle of the run: {self._sampler.stop().ended_by}")
        if any(is_gone(owner.pid, owner.start_ticks) for owner in self._owners):
            raise RunError("Snakemake is gone; stopping")
        if self.server is not None and not self.server.alive():
            raise self.server.failure("the server ended in the middle of the run")
        if self.attached is not None and is_gone(*self.attached):
            raise RunError(f"the server, process {self.attached.pid}, ended in the middle of the run; its log says why")


def run_until_signal(main: Coroutine[Any, Any, Result], on_signal: Callable[[str], None]) -> Result:
    """Run a coroutine; SIGINT and SIGTERM cancel it, so that its clean-up runs.

    Raises:
        RunError: it was interrupted.
    """

    async def supervised() -> Result:
        task = asyncio.ensure_future(main)
        received: list[str] = []

        def stop(name: str) -> None:
            if not received:
                on_signal(name)
            received.append(name)
            task.cancel()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number.name)
        try:
            return await task
        except asyncio.CancelledError:
            raise RunError(f"interrupted by {' and '.join(dict.fromkeys(received)) or 'its caller'}") from None

    return asyncio.run(supervised())
