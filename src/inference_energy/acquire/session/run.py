"""The rule `session`: one life of a server, with power logged from before its launch until after its end.

A live server is process state, not a file, so launch, idle, load and stop are one rule; the phases it notes let later
rules cut the raw files apart.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from inference_energy.acquire.gpus import cards_of
from inference_energy.acquire.load.request_log import merge_request_logs
from inference_energy.acquire.load.worker_messages import CellTimes
from inference_energy.acquire.power.characterize.profile import profiles_of
from inference_energy.acquire.power.power_log import compact_power_log
from inference_energy.acquire.power.sampler_handle import SamplerProcess, SamplerStats
from inference_energy.acquire.power.sources.cputime import MachineCpuTime
from inference_energy.acquire.server.guardian_client import WatchedProcess
from inference_energy.acquire.server.launch import launch_server, recorded_environment, server_environment
from inference_energy.acquire.server.locks import acquire_locks
from inference_energy.acquire.server.metrics import MetricsPoller, compact_metrics_log
from inference_energy.acquire.server.pages import Access
from inference_energy.acquire.server.settings import LaunchSpec, command
from inference_energy.acquire.session.live_stats import LiveStats, Progress, labelled_power
from inference_energy.acquire.session.load_phase import SessionLoad
from inference_energy.acquire.session.measurement import (
    Watchdog,
    finish_log,
    log_tail_s,
    run_until_signal,
    sampler_spec,
)
from inference_energy.acquire.session.server import (
    answers,
    attach_here,
    check_before_launch,
    config_keys,
    launch_spec,
    server_gpus,
)
from inference_energy.acquire.session.settings import SessionSpec
from inference_energy.config.servers import AttachSettings, LaunchSettings
from inference_energy.contracts.documents.document import write_document
from inference_energy.contracts.documents.session import (
    ClockAnchor,
    CpuUse,
    LaunchFacts,
    MetricsPolling,
    ProcessUse,
    ProfileFile,
    ServerFacts,
    SessionDocument,
    StopFacts,
    WindowPlan,
    raw_digests,
)
from inference_energy.contracts.io import clock_anchor, read_json, write_json, write_table
from inference_energy.contracts.phases import SCHEMA as PHASES_SCHEMA
from inference_energy.errors import InputError, RunError

ATTACHED = {
    "cold_idle": "the server was already running: its machine without it was never seen",
    "launch": "the server was already running",
    "stop": "the server is not ours to stop",
    "post_idle": "the server is not ours to stop",
}

SILENCE_S = 10.0
"""Without a token for this long, requests waiting, a server hangs; sooner if it answers no page either."""

PARTIAL = "partial"
"""Folder beside the logs of a session that failed: its files up to then. No rule reads them."""

EARLIER = "partial.earlier"
"""The same of the run that failed before the last one."""


@dataclass(frozen=True)
class SessionFiles:
    """Where a session reads its plan and writes its measurements."""

    environment: Path
    model: Path
    prompts: Path
    schedule: Path
    output: Path
    logs: Path


class Phase(NamedTuple):
    """A row of phases.parquet."""

    phase: str
    cell: str | None
    start_ns: int
    end_ns: int


def run_session(spec: SessionSpec, files: SessionFiles) -> None:
    """Measure a session and write its raw files into `files.output`; the logs stay also after a failure.

    After a failure under load, the measurements up to then are in the folder `partial` of the logs.

    Raises:
        InputError, RunError: see `SessionRun`.
    """
    files.logs.mkdir(parents=True, exist_ok=True)
    _put_aside(files.logs)
    run = SessionRun(spec, files)
    try:
        run_until_signal(run.measure(), lambda name: run.progress.say(f"{name}: stopping the server"))
    except RunError as error:
        if run.load_phase is not None:
            keep_partial(files.logs, run.phases, run.load_phase, run.clock_anchor, error)
        raise


def _put_aside(logs: Path) -> None:
    """Keep what the last failed run had measured, in the place of that of the one before."""
    if (logs / PARTIAL).is_dir():
        shutil.rmtree(logs / EARLIER, ignore_errors=True)
        (logs / PARTIAL).rename(logs / EARLIER)


class SessionRun:
    """One run of a session; `measure` is called once.

    Attributes:
        phases: those that are over.
        load_phase: the name of the load phase that runs or ran last; None before the first.
        clock_anchor: the session's.
    """

    def __init__(self, spec: SessionSpec, files: SessionFiles) -> None:
        """Read the plan, and check all that can be checked before anything starts.

        Raises:
            InputError: with the configuration's key.
        """
        self.spec = spec
        self.files = files
        self.phases: list[Phase] = []
        self.load_phase: str | None = None
        self.clock_anchor: dict[str, int] = {}
        model = read_json(files.model)
        self._model_name: str = model["name"]
        self._load = SessionLoad(spec, files.prompts, files.schedule, files.logs / "load")
        self._gpus = server_gpus(spec.server, spec.server_settings)
        self._access = Access.from_config(spec.client, attached=spec.mode == "attach")
        self._power_log = files.logs / "power.arrows"
        self._metrics_log = files.logs / "server_metrics.arrows"
        self._poller: MetricsPoller | None = None
        self._sampler_stats: SamplerStats | None = None
        self._launch: LaunchFacts | None = None
        self._stop: StopFacts | None = None
        self._missing: dict[str, str] = {}
        self._machine_cpu: dict[str, CpuUse] = {}
        self._launch_spec: LaunchSpec | None = None
        if isinstance(spec.server_settings, LaunchSettings):
            environment = read_json(files.environment)
            self._launch_spec = launch_spec(spec.server, spec.server_settings, environment, model, files.logs)
            check_before_launch(spec.server, self._launch_spec)
        self.progress = Progress(spec.session, spec.planned_s(), LiveStats(self._load.counts, self._generated_tokens))

    async def measure(self) -> None:
        """Run the phases, then write every file.

        Raises:
            InputError: the attached server does not answer, or there is no power source.
            RunError: the server or the sampler died, or no request succeeded; no result is written then.
        """
        self.clock_anchor = clock_anchor()
        cpu_s, wall_s = time.process_time(), time.monotonic()
        if isinstance(self.spec.server_settings, AttachSettings):
            server = await self._measure_attached(self.spec.server_settings)
        else:
            server = await self._measure_launched()
        self._write(server, ProcessUse(cpu_s=time.process_time() - cpu_s, wall_s=time.monotonic() - wall_s))

    async def _measure_launched(self) -> ServerFacts:
        launch = self._launch_spec
        assert launch is not None
        sampler = SamplerProcess(sampler_spec(self.spec.power, self._gpus, status=launch.status_path), self._power_log)
        launch.status_path.unlink(missing_ok=True)
        async with AsyncExitStack() as stack:
            stack.enter_context(sampler)
            stack.push_async_callback(asyncio.sleep, log_tail_s(self.spec.power))
            watchdog = self._watchdog(sampler)
            await watchdog.wait(1.0)
            self.progress.begin("launch")
            begun_ns = time.monotonic_ns()
            with config_keys(self.spec.server, launch):
                server = await watchdog.run(
                    launch_server(launch, on_progress=lambda _, line: self.progress.tick(line[-80:]))
                )
            await stack.enter_async_context(server)
            watchdog.server = server
            self._note_phase("launch", begun_ns)
            self._launch = LaunchFacts(
                ready_after_s=server.ready_after_s,
                pid=server.server_pid,
                command=command(launch),
                environment=recorded_environment(server_environment(launch, os.environ)),
                gpus=self._gpus,
            )
            await self._run_load(watchdog, server.base_url, launch.served_model_name)
            watchdog.server = None
            self.progress.begin("stop")
            begun_ns = time.monotonic_ns()
            self._stop = msgspec.convert((await server.stop())._asdict(), StopFacts)
            self._note_phase("stop", begun_ns)
            await self._post_idle(watchdog)
        self._sampler_stats = sampler.stop()
        return ServerFacts(name=self.spec.server, version=server.version, endpoint=server.base_url)

    async def _post_idle(self, watchdog: Watchdog) -> None:
        """Idle after the run, with the locks held again: the guardian released them with the server."""
        if self.spec.post_idle_s == 0:
            self._missing["post_idle"] = "idle.post_s is 0"
            return
        self.progress.begin("post-run idle")
        try:
            locks = acquire_locks(cards_of(self._gpus))
        except InputError as error:
            self._missing["post_idle"] = f"another run began at once: {error}"
            return
        with locks:
            await watchdog.wait(self.spec.settle_s)
            await self._idle(watchdog, "post_idle", self.spec.post_idle_s)

    async def _measure_attached(self, settings: AttachSettings) -> ServerFacts:
        server = await attach_here(self.spec.server, settings, self._access)
        self._missing |= ATTACHED
        self._model_name = server.model
        sampler = SamplerProcess(sampler_spec(self.spec.power, self._gpus, pid=server.server_pid), self._power_log)
        async with AsyncExitStack() as stack:
            stack.enter_context(sampler)
            stack.push_async_callback(asyncio.sleep, log_tail_s(self.spec.power))
            watchdog = self._watchdog(sampler)
            watchdog.attached = WatchedProcess.of(server.server_pid) if server.server_pid else None
            await watchdog.wait(1.0)
            await self._run_load(watchdog, server.base_url, server.model)
        self._sampler_stats = sampler.stop()
        return ServerFacts(name=self.spec.server, version=server.version, endpoint=server.base_url)

    def _watchdog(self, sampler: SamplerProcess) -> Watchdog:
        self.progress.stats.power = lambda: labelled_power(sampler.latest())
        return Watchdog(self.progress, sampler)

    def _generated_tokens(self) -> int:
        """Return the server's own count at the last scrape; without it, the tokens of the answers that have ended."""
        newest = self._poller.newest("generated") if self._poller else None
        return self._load.tokens() if newest is None else int(newest)

    async def _run_load(self, watchdog: Watchdog, endpoint: str, model: str) -> None:
        """Run loaded idle, then the cells, with the server's metrics polled all along.

        Right before and after each cell they are read once more, with nothing in flight, so that the server's counts of
        a cell are known exactly. The CPU time of the machine is noted for each cell too.
        """
        self._poller = poller = MetricsPoller(endpoint, self.spec.metrics_interval_s, self._metrics_log, self._access)
        busy_cpu = MachineCpuTime()
        async with AsyncExitStack() as stack:
            await watchdog.run(stack.enter_async_context(self._load.workers(endpoint, model)))
            poller.start()
            stack.push_async_callback(poller.stop)
            self.progress.begin("loaded idle")
            await watchdog.run(poller.scrape_now())
            if busy := poller.requests():
                self._missing["loaded_idle"] = f"others were using the server ({busy:.0f} requests running)"
            else:
                await watchdog.wait(self.spec.settle_s)
                await self._idle(watchdog, "loaded_idle", self.spec.loaded_idle_s)
            for cell in self.spec.cells:
                self.load_phase = cell.phase_name
                self.progress.begin(cell.phase_name, closed=cell.arrival.get("process") == "closed")
                await watchdog.run(poller.scrape_idle())
                before_s, busy_s = time.monotonic(), busy_cpu.seconds()
                times = await watchdog.run(self._load.run_cell(cell))
                self._machine_cpu[cell.name] = CpuUse(
                    busy_s=busy_cpu.seconds() - busy_s, wall_s=time.monotonic() - before_s
                )
                await watchdog.run(poller.scrape_idle())
                await self._check_silence(cell.phase_name, times, watchdog, endpoint)
                kind = "warmup" if cell.kind == "warmup" else "window"
                self.phases.append(Phase(kind, cell.name, times.start_ns, times.end_ns))
                self.phases.append(Phase("drain", cell.name, times.end_ns, times.drained_ns))

    async def _check_silence(self, phase: str, times: CellTimes, watchdog: Watchdog, endpoint: str) -> None:
        """Check that the server had not fallen silent by the end of a cell.

        Its process may be there and even answer other pages, while the engine behind it hangs.

        Raises:
            RunError: requests waited and no token came any more.
        """
        silence_s = self._load.silence_s(times)
        if silence_s < SILENCE_S and (silence_s < 1.0 or await watchdog.run(answers(endpoint, self._access))):
            return
        what = (
            f"the server fell silent in {phase}: for the last {silence_s:.0f} s, until the end of the drain, "
            "requests waited and no token came"
        )
        raise watchdog.server.failure(what) if watchdog.server else RunError(f"{what}; its log may say why")

    async def _idle(self, watchdog: Watchdog, phase: str, duration_s: float) -> None:
        begun_ns = time.monotonic_ns()
        await watchdog.wait(duration_s)
        self._note_phase(phase, begun_ns)

    def _note_phase(self, phase: str, start_ns: int) -> None:
        self.phases.append(Phase(phase, None, start_ns, time.monotonic_ns()))

    def _write(self, server: ServerFacts, own_use: ProcessUse) -> None:
        assert self._sampler_stats is not None
        output, anchor, poller = self.files.output, self.clock_anchor, self._poller
        interval_s = self.spec.power["interval_s"]
        power = finish_log(self._sampler_stats, self._power_log, output / "power.parquet", interval_s)
        self._load.write(output, anchor)
        compact_metrics_log(self._metrics_log, output / "server_metrics.parquet", clock_anchor=anchor)
        write_phases(output, self.phases, anchor)
        windows = {
            cell.name: WindowPlan(
                kind=cell.kind, workload=cell.workload, arrival=dict(cell.arrival), duration_s=cell.duration_s
            )
            for cell in self.spec.cells
        }
        warmup = windows.pop("warmup", None)
        document = SessionDocument(
            session=self.spec.session,
            machine=self.spec.machine,
            mode=self.spec.mode,
            model=self._model_name,
            power=power,
            windows=windows,
            warmup=warmup,
            characterisation=msgspec.convert(profiles_of(cards_of(self._gpus)), dict[str, ProfileFile]),
            metrics=MetricsPolling(scrapes=poller.scrapes, errors=poller.errors, last_error=poller.last_error)
            if poller
            else None,
            launch=self._launch,
            stop=self._stop,
            missing=self._missing,
            machine_cpu=self._machine_cpu,
            clock_anchor=msgspec.convert(anchor, ClockAnchor),
            server=server,
            client=self._load.cost,
            session_process=own_use,
            files=self._raw_digests(),
        )
        write_document(output / SessionDocument.FILE, document)

    def _raw_digests(self) -> dict[str, str]:
        """Return digests of what was read and written, so that none can be changed later without a trace."""
        files, spec = self.files, self.spec
        idle = files.output.parent.parent / "idle" / spec.server
        return raw_digests(
            spec.server,
            spec.session,
            {
                "servers": [files.environment, files.model],
                "idle": idle.glob("*"),
                "sessions": [*files.output.glob("*"), files.prompts, files.schedule],
            },
        )


def write_phases(folder: Path, phases: Sequence[Phase], anchor: Mapping[str, int]) -> None:
    """Write phases.parquet into a folder."""
    rows = [phase._asdict() for phase in phases]
    write_table(folder / "phases.parquet", rows, PHASES_SCHEMA, clock_anchor=dict(anchor))


def keep_partial(
    logs: Path, phases: Sequence[Phase], load_phase: str, anchor: Mapping[str, int], error: RunError
) -> None:
    """Turn the readable part of a failed session's logs into files, and add their place and content to the error.

    Args:
        logs: the session's folder of logs, holds power.arrows, server_metrics.arrows and load/.
        phases: those that were over.
        load_phase: the phase in which it failed.
        anchor: the session's clock anchor.
        error: why it failed.
    """
    folder = logs / PARTIAL
    facts = {"clock_anchor": dict(anchor), "failure": str(error), "under_way": load_phase}
    write_json(folder / "session.json", facts)
    write_phases(folder, phases, anchor)
    files: dict[str, Callable[[Path], object]] = {
        "requests": lambda target: merge_request_logs(logs / "load", target, clock_anchor=dict(anchor)),
        "power": lambda target: compact_power_log(logs / "power.arrows", target),
        "server_metrics": lambda target: compact_metrics_log(
            logs / "server_metrics.arrows", target, clock_anchor=dict(anchor)
        ),
    }
    for name, make in files.items():
        # The error is the one to see; a log that cannot be read stays as it is.
        with suppress(RunError, OSError, pa.ArrowInvalid):
            make(folder / f"{name}.parquet")
    error.add_note(
        f"What was measured until then is kept in {folder}: {_partial_content(folder)}. It goes into no result."
    )


def _partial_content(folder: Path) -> str:
    requests, power = folder / "requests.parquet", folder / "power.parquet"
    parts = []
    if requests.is_file():
        counts = pc.value_counts(pq.read_table(requests, columns=["status"])["status"]).to_pylist()
        statuses = ", ".join(f"{count['counts']} {count['values']}" for count in counts)
        parts.append(f"requests ({statuses})" if statuses else "no request")
    if power.is_file():
        times = pc.min_max(pq.read_table(power, columns=["timestamp_ns"])["timestamp_ns"]).as_py()
        if times["max"] is not None:
            parts.append(f"power over {(times['max'] - times['min']) / 1e9:.0f} s")
    return " and ".join(parts) or "only logs"
