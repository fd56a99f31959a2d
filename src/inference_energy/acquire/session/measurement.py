"""The frame of a measurement: the power log around it, the watchdog during it, and an orderly end on a signal."""

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from inference_energy.acquire.gpus import cards_of
from inference_energy.acquire.power.characterize.profile import averaging_windows_s
from inference_energy.acquire.power.power_log import compact_power_log
from inference_energy.acquire.power.sampler_handle import SamplerProcess, SamplerStats
from inference_energy.acquire.power.settings import SamplerSpec
from inference_energy.acquire.server.guardian import is_gone
from inference_energy.acquire.server.guardian_client import WatchedProcess, snakemake_ancestors
from inference_energy.acquire.server.launch import RunningServer
from inference_energy.acquire.session.live_stats import Progress
from inference_energy.contracts.documents.session import PowerLogRecord
from inference_energy.contracts.io import read_metadata
from inference_energy.errors import RunError

Result = TypeVar("Result")

LOG_MARGIN_S = 0.5
"""How long the power log goes on after the last phase, besides two readings: a 1 s average describes the time half a
second earlier."""

TICK_S = 0.25


def log_tail_s(power: Mapping[str, Any]) -> float:
    """Return how long the sampler must go on after the last phase, so that its readings reach beyond it [s]."""
    return LOG_MARGIN_S + 2.0 * float(power["interval_s"])


def sampler_spec(
    power: Mapping[str, Any], gpus: list[str], *, status: Path | None = None, pid: int | None = None
) -> SamplerSpec:
    """Build the sampler's settings.

    Args:
        power: the section of the configuration.
        gpus: UUIDs of the server's GPUs or MIG instances; an empty list leaves GPUs out.
        status: the guardian's status file: it names the process whose CPU time the modelled source counts. A file that
            is never made stands for no server.
        pid: an attached server's process.
    """
    return SamplerSpec.parse(
        {
            **power,
            "gpus": gpus,
            "server_status": None if status is None else str(status.absolute()),
            "server_pid": pid,
            "averaging_windows_s": averaging_windows_s(cards_of(gpus)),
        }
    )


def finish_log(stats: SamplerStats, log: Path, target: Path, interval_s: float | None = None) -> PowerLogRecord:
    """Make power.parquet from the sampler's log; return its record, for session.json and idle.json."""
    compacted = compact_power_log(log, target)
    return PowerLogRecord(
        interval_s=interval_s,
        sources=read_metadata(target).get("source", []),
        rows=compacted.rows,
        truncated=bool(compacted.truncated),
        ended_by=stats.ended_by,
        elapsed_s=stats.elapsed_s,
        channels=stats.channels,
        faults=stats.faults,
    )


class Watchdog:
    """Runs coroutines and ends them when the sampler dies, the server ends, or Snakemake is gone.

    Attributes:
        server: the one that we launched, while it must run.
        attached: the process of a server that we did not launch, where it is known.
    """

    def __init__(self, progress: Progress, sampler: SamplerProcess) -> None:
        self._progress = progress
        self._sampler = sampler
        self._owners: tuple[WatchedProcess, ...] = snakemake_ancestors()
        self.server: RunningServer | None = None
        self.attached: WatchedProcess | None = None

    async def wait(self, duration_s: float) -> None:
        """Wait for some time.

        Raises:
            RunError: a watched process failed.
        """
        until_s = time.monotonic() + duration_s
        while (left_s := until_s - time.monotonic()) > 0:
            await asyncio.sleep(min(TICK_S, left_s))
            self.check()

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run one coroutine to its end; if a watched process fails first, cancel it and raise.

        Raises:
            RunError: the failure, with the end of the server's log if it was the server.
        """
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=TICK_S)
                if not task.done():
                    self.check()
            return await task
        except BaseException:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise

    def check(self) -> None:
        """Check all watched processes once, and show progress.

        Raises:
            RunError: one of them failed.
        """
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
