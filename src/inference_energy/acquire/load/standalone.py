"""A load outside the pipeline, on running endpoints: the cell `load-test` of a plan, after an optional warm-up.

The imports of this module stay in memory while load is sent, beside the load processes: no Arrow, no NumPy, no
pydantic. Planning and summing up need those; they run before and after, in processes of their own.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.acquire.load.settings import CellSettings, LoadSpec, api_key_env
from inference_energy.acquire.load.worker_messages import CellTimes
from inference_energy.acquire.load.worker_pool import WorkerPool
from inference_energy.acquire.power.sources.cputime import MachineCpuTime
from inference_energy.contracts.documents.session import LoadClient
from inference_energy.contracts.load_client import WorkloadSettings

if TYPE_CHECKING:
    from inference_energy.config.load.client import ClientConfig


CELL, WARMUP = "load-test", "warmup"
TICK_S = 0.25
LOGS = "load"


@dataclass(frozen=True)
class LoadRun:
    """The settings of a load.

    Attributes:
        endpoints: base URLs without /v1, used in turn.
        model: its name there.
        workload: how requests ask.
        client: how they are sent.
        duration_s: how long requests are sent [s].
        warmup_s: how long the plan's cell `warmup` is sent before; 0: there is none.
    """

    endpoints: tuple[str, ...]
    model: str
    workload: WorkloadSettings
    client: "ClientConfig"
    duration_s: float
    warmup_s: float = 0.0

    @property
    def cells(self) -> dict[str, float]:
        """Durations of the cells [s], in order."""
        return {WARMUP: self.warmup_s, CELL: self.duration_s} if self.warmup_s else {CELL: self.duration_s}


@dataclass(frozen=True)
class LoadRunResult:
    """The result of a load.

    Attributes:
        counts: of the last cell's requests.
        times: of the cell `load-test`; None where it was stopped before its end.
        client: the cost of its processes.
        machine_busy_s: CPU time of this machine, all programs together, during the cell `load-test` [s].
        stopped_ns: when it was stopped early; None: it was not.
    """

    counts: LiveCounts
    times: CellTimes | None
    client: LoadClient
    machine_busy_s: float
    stopped_ns: int | None


async def run_plan(
    plan_folder: Path,
    load: LoadRun,
    on_tick: Callable[[str, LiveCounts], None] = lambda *_: None,
    stop: asyncio.Event | None = None,
) -> LoadRunResult:
    """Send the cell `load-test` of the plan in a folder, after its cell `warmup` if there is one.

    The logs of the requests are in the plan's folder `load`, also after a failure; see `request_log`.

    Args:
        plan_folder: holds prompts.parquet and schedule.parquet.
        load: its settings.
        on_tick: called four times a second with the cell and its counts so far.
        stop: once set, requests in flight are cut off and logged, and no more are sent.

    Raises:
        InputError: the plan or the settings cannot be used.
        RunError: a process died.
    """
    spec = LoadSpec.from_config(
        load.client,
        api_key_env(load.client.api_key_env, attached=True),
        endpoints=load.endpoints,
        model=load.model,
        cells={name: CellSettings(duration_s, load.workload) for name, duration_s in load.cells.items()},
        prompts=plan_folder / "prompts.parquet",
        schedule=plan_folder / "schedule.parquet",
        folder=plan_folder / LOGS,
    )
    stop = stop or asyncio.Event()
    times, stopped_ns = None, None
    busy_cpu, busy_s = MachineCpuTime(), 0.0
    async with WorkerPool(spec) as pool:
        for cell in load.cells:
            before_s = busy_cpu.seconds()
            times = await _run_cell(pool, cell, on_tick, stop)
            busy_s = busy_cpu.seconds() - before_s
            if times is None:
                stopped_ns = time.monotonic_ns()
                break
        return LoadRunResult(pool.counts, times, await pool.finish(), busy_s, stopped_ns)


async def _run_cell(
    pool: WorkerPool, cell: str, on_tick: Callable[[str, LiveCounts], None], stop: asyncio.Event
) -> CellTimes | None:
    """Run a cell; returns None if it was stopped."""
    running = asyncio.ensure_future(pool.run_cell(cell))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        while not running.done() and not stopping.done():
            await asyncio.wait({running, stopping}, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
            on_tick(cell, pool.counts)
        return await running if running.done() else None
    finally:
        stopping.cancel()
        running.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)
