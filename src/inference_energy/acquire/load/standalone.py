"""A request log outside the pipeline as CSV, with the seed's columns first.

A request log outside the pipeline as CSV, with the seed's columns first.

One load on endpoints that run, outside the pipeline: the cell `load-test` of a plan, perhaps after a warm-up.

What is imported here stays in memory while load is sent, beside the load processes: no Arrow, no NumPy. What needs
those is done before and after, in processes of its own.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.acquire.load.loops import CellTimes
from inference_energy.acquire.load.settings import CellSettings, LoadSpec, api_key_env
from inference_energy.acquire.load.worker_pool import WorkerPool
from inference_energy.acquire.power.sources.cputime import MachineCpuTime
from inference_energy.contracts.io import atomic_write, read_metadata, read_table
from inference_energy.errors import InputError


def check_ending(path: Path) -> None:
    """Raises InputError unless the path ends in .csv or .parquet."""
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"--output: {path} must end in .csv or .parquet")


def write_csv(requests: Path, target: Path) -> None:
    """Write a requests.parquet as CSV.

    It begins with `timestamp` (when sent, Unix time in s), `prompt_tokens`, `completion_tokens` and `latency` (from
    sending to the end, s); the contract's columns follow.

    Raises:
        InputError: `requests` is missing or no such file.
    """
    # Here, because the process beside the load has neither Arrow nor NumPy.
    from inference_energy.contracts.requests import SCHEMA

    rows = read_table(requests, SCHEMA)
    anchor = read_metadata(requests)["clock_anchor"]
    offset_ns = anchor["unix_ns"] - anchor["monotonic_ns"]
    tokens = ["prompt_tokens", "completion_tokens"]
    table = rows[tokens].copy()
    table.insert(0, "timestamp", (rows["sent_ns"] + offset_ns).astype("Float64") / 1e9)
    table["latency"] = (rows["end_ns"] - rows["sent_ns"]).astype("Float64") / 1e9
    table = table.join(rows.drop(columns=tokens))
    with atomic_write(target) as partial:
        table.to_csv(partial, index=False, float_format="%.6f")


CELL, WARMUP = "load-test", "warmup"
TICK_S = 0.25
LOGS = "load"


@dataclass(frozen=True)
class LoadRun:
    """What a load test is told.

    Attributes:
        endpoints: base URLs without /v1, used in turn.
        model: its name there.
        duration_s: how long requests are sent [s].
        warmup_s: how long the plan's cell `warmup` is sent before; 0: there is none.
        workload: settings of the workload that concern the client; see `worker.spec.CellSettings`.
        client: settings of the client; see `worker.spec.LoadSpec`.
    """

    endpoints: tuple[str, ...]
    model: str
    duration_s: float
    warmup_s: float = 0.0
    workload: Mapping[str, Any] = field(default_factory=dict)
    client: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cells(self) -> dict[str, float]:
        """How long each cell is sent [s], in order."""
        return {WARMUP: self.warmup_s, CELL: self.duration_s} if self.warmup_s else {CELL: self.duration_s}


@dataclass(frozen=True)
class LoadRunResult:
    """What came of a load test.

    Attributes:
        counts: of the last cell's requests.
        times: when the cell `load-test` sent and when its last request had ended; None where it was stopped before.
        client: what its processes took; see `WorkerPool.finish`.
        machine_busy_s: CPU time of this machine, all programs together, while the cell `load-test` was under way [s].
        stopped_ns: when it was stopped early; None: it was not.
    """

    counts: LiveCounts
    times: CellTimes | None
    client: Mapping[str, Any]
    machine_busy_s: float
    stopped_ns: int | None


async def run_test(
    plan_folder: Path,
    settings: LoadRun,
    on_tick: Callable[[str, LiveCounts], None] = lambda *_: None,
    stop: asyncio.Event | None = None,
) -> LoadRunResult:
    """Send the cell `load-test` of the plan in a folder, after its cell `warmup` if there is one.

    The logs of the requests lie in the plan's folder `load` whatever happens; see `log.merge`.

    Args:
        plan_folder: holds prompts.parquet and schedule.parquet.
        settings: what to run.
        on_tick: called four times a second with the cell and its counts so far.
        stop: once set, what is in flight is cut off and logged, and nothing more is sent.

    Raises:
        InputError: the plan or the settings cannot be used.
        RunError: a process died.
    """
    client = dict(settings.client)
    client["api_key_env"] = api_key_env(client.get("api_key_env"), attached=True, setting="--api-key-env")
    spec = LoadSpec(
        endpoints=settings.endpoints,
        model=settings.model,
        cells={name: CellSettings(duration_s, settings.workload) for name, duration_s in settings.cells.items()},
        prompts=str((plan_folder / "prompts.parquet").absolute()),
        schedule=str((plan_folder / "schedule.parquet").absolute()),
        folder=str((plan_folder / LOGS).absolute()),
        **client,
    )
    stop = stop or asyncio.Event()
    times, stopped_ns = None, None
    busy_cpu, busy_s = MachineCpuTime(), 0.0
    async with WorkerPool(spec) as team:
        for cell in settings.cells:
            before_s = busy_cpu.seconds()
            times = await _ticking(team, cell, on_tick, stop)
            busy_s = busy_cpu.seconds() - before_s
            if times is None:
                stopped_ns = time.monotonic_ns()
                break
        return LoadRunResult(team.live, times, await team.finish(), busy_s, stopped_ns)


async def _ticking(
    team: WorkerPool, cell: str, on_tick: Callable[[str, LiveCounts], None], stop: asyncio.Event
) -> CellTimes | None:
    """The cell's times; None if it was stopped."""
    running = asyncio.ensure_future(team.run_cell(cell))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        while not running.done() and not stopping.done():
            await asyncio.wait({running, stopping}, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
            on_tick(cell, team.live)
        return await running if running.done() else None
    finally:
        stopping.cancel()
        running.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)
