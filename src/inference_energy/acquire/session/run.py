"""The sampler for one server's devices, and the end of its log.

The sampler for one server's devices, and the end of its log.

The rule `session`: one life of a server, with power logged from before its launch until after its end.

A live server is process state, not a file, so launch, idle, load and stop are one rule; the phases it notes let later
rules cut the raw files apart.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_energy.acquire.gpus import cards_of
from inference_energy.acquire.power.characterize.profile import averaging_windows_s, profiles_of
from inference_energy.acquire.power.power_log import compact_power_log
from inference_energy.acquire.power.sampler_handle import SamplerProcess, SamplerStats
from inference_energy.acquire.power.settings import SamplerSpec
from inference_energy.acquire.power.simulated import simulated_node
from inference_energy.acquire.power.sources.cputime import MachineCpuTime
from inference_energy.acquire.server.attach import Access
from inference_energy.acquire.server.guardian_client import WatchedProcess
from inference_energy.acquire.server.launch import launch_server, recorded_environment, server_environment
from inference_energy.acquire.server.locks import acquire_locks
from inference_energy.acquire.server.metrics import MetricsPoller, compact_metrics_log
from inference_energy.acquire.server.settings import LaunchSpec, command
from inference_energy.acquire.session.live_stats import LiveStats, Progress
from inference_energy.acquire.session.load_phase import SessionLoad, clear_partial, keep_partial
from inference_energy.acquire.session.server_phase import (
    Watchdog,
    attach_here,
    check_before_launch,
    gpus_of,
    keys_of,
    launch_spec,
    run_until_signal,
)
from inference_energy.acquire.session.settings import SessionSpec, stage_name
from inference_energy.contracts import phases
from inference_energy.contracts.io import clock_anchor, read_json, read_metadata, write_json, write_table
from inference_energy.contracts.power import summed_domains
from inference_energy.errors import InputError, RunError

LOG_BEYOND_S = 0.5
"""How long the log goes on after the last phase, two readings apart: a 1 s average tells of half a second earlier."""


def log_tail_s(power: Mapping[str, Any]) -> float:
    """How long the sampler must go on after the last phase, so that its readings reach beyond the phase's end."""
    return LOG_BEYOND_S + 2.0 * float(power["interval_s"])


def sampler_spec(
    power: Mapping[str, Any], gpus: list[str], *, status: Path | None = None, pid: int | None = None
) -> SamplerSpec:
    """What the sampler is asked to do.

    Args:
        power: the section of the configuration.
        gpus: UUIDs of the server's GPUs or MIG instances; an empty list leaves GPUs out.
        status: the guardian's status file, which tells the modelled source whose CPU time to count. A file that is
            never made stands for no server.
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


def finish_log(stats: SamplerStats, log: Path, target: Path) -> dict[str, Any]:
    """Make power.parquet from the sampler's stream; what it counted, for session.json."""
    held = compact_power_log(log, target)
    return {
        "sources": read_metadata(target).get("source", []),
        "rows": held.rows,
        "truncated": bool(held.truncated),
        "ended_by": stats.ended_by,
        "elapsed_s": stats.elapsed_s,
        "channels": stats.channels,
        "faults": stats.faults,
    }


def labelled_power(latest: Mapping[str, float]) -> dict[str, float]:
    """The newest power of the domains that may be added up [W], for progress lines.

    Args:
        latest: the newest power of each domain. `cpu`, which no sensor has, is then called modelled, and all of a
            virtual node simulated.
    """
    summed = summed_domains(latest)
    return {_labelled(domain): power_w for domain, power_w in latest.items() if domain in summed}


def _labelled(domain: str) -> str:
    if simulated_node() is not None:
        return f"{domain} (simulated)"
    return f"{domain} (modelled)" if domain == "cpu" else domain


ATTACHED = {
    "cold_idle": "the server was already running: its machine without it was never seen",
    "launch": "the server was already running",
    "stop": "the server is not ours to stop",
    "post_idle": "the server is not ours to stop",
}


@dataclass(frozen=True)
class SessionFiles:
    """Where a session reads its plan and writes what it measured."""

    environment: Path
    model: Path
    prompts: Path
    schedule: Path
    output: Path
    logs: Path


class SessionRun:
    """One run of a session; `measure` is called once."""

    def __init__(self, spec: SessionSpec, files: SessionFiles) -> None:
        """Read the plan, and check all that can be checked before anything starts.

        Raises:
            InputError: with the configuration's key.
        """
        self.spec = spec
        self.files = files
        self.model: Mapping[str, Any] = read_json(files.model)
        self.load = SessionLoad(spec, files.prompts, files.schedule, files.logs / "load")
        self.gpus = gpus_of(spec.server, spec.server_settings)
        self.access = Access.of(spec.client, attached=spec.mode == "attach")
        self.log = files.logs / "power.arrows"
        self.phases: list[dict[str, Any]] = []
        self.metrics_log = files.logs / "server_metrics.arrows"
        self.facts: dict[str, Any] = {"launch": None, "stop": None, "missing": {}, "machine_cpu": {}}
        self.poller: MetricsPoller | None = None
        self.launch_spec: LaunchSpec | None = None
        self.under_way: str | None = None
        if spec.mode == "launch":
            environment = read_json(files.environment)
            self.launch_spec = launch_spec(spec.server, spec.server_settings, environment, self.model, files.logs)
            check_before_launch(spec.server, self.launch_spec)
        so_far = LiveStats(self.load.live, self._generated_tokens)
        self.progress = Progress(spec.session, spec.planned_s(), so_far)

    async def measure(self) -> None:
        """Run the phases, then write every file.

        Raises:
            InputError: the attached server does not answer, or there is no power source.
            RunError: the server or the sampler died, or no request succeeded; no result is written then.
        """
        self.facts["clock_anchor"] = clock_anchor()
        cpu_s, wall_s = time.process_time(), time.monotonic()
        if self.launch_spec is None:
            await self._measure_attached()
        else:
            await self._measure_launched(self.launch_spec)
        own = {"cpu_s": time.process_time() - cpu_s, "wall_s": time.monotonic() - wall_s}
        self.facts |= {"client": self.load.facts, "session_process": own}
        self._write()

    async def _measure_launched(self, launch_with: LaunchSpec) -> None:
        sampler = SamplerProcess(sampler_spec(self.spec.power, self.gpus, status=launch_with.status_path), self.log)
        launch_with.status_path.unlink(missing_ok=True)
        async with AsyncExitStack() as stack:
            stack.enter_context(sampler)
            stack.push_async_callback(asyncio.sleep, log_tail_s(self.spec.power))
            watch = self._watch(sampler)
            await watch.wait(1.0)
            self.progress.begin("launch")
            begun_ns = time.monotonic_ns()
            with keys_of(self.spec.server, launch_with):
                server = await watch.run(
                    launch_server(launch_with, on_progress=lambda _, line: self.progress.tick(line[-80:]))
                )
            await stack.enter_async_context(server)
            watch.server = server
            self._phase("launch", begun_ns)
            self.facts["launch"] = {
                "ready_after_s": server.ready_after_s,
                "pid": server.server_pid,
                "command": command(launch_with),
                "environment": recorded_environment(server_environment(launch_with, os.environ)),
                "gpus": self.gpus,
            }
            self.facts["server"] = self._server_facts(server.version, server.base_url)
            await self._load(watch, server.base_url, launch_with.served_model_name)
            watch.server = None
            self.progress.begin("stop")
            begun_ns = time.monotonic_ns()
            self.facts["stop"] = await server.stop()
            self._phase("stop", begun_ns)
            await self._post_idle(watch)
        self.facts["sampler"] = sampler.stop()

    async def _post_idle(self, watch: Watchdog) -> None:
        """Idle after the run, with the locks held again: the guardian let go of them with the server."""
        if self.spec.post_idle_s == 0:
            self.facts["missing"]["post_idle"] = "idle.post_s is 0"
            return
        self.progress.begin("post-run idle")
        try:
            locks = acquire_locks(cards_of(self.gpus))
        except InputError as error:
            self.facts["missing"]["post_idle"] = f"another run began at once: {error}"
            return
        with locks:
            await watch.wait(self.spec.settle_s)
            await self._idle(watch, "post_idle", self.spec.post_idle_s)

    async def _measure_attached(self) -> None:
        server = await attach_here(self.spec.server, self.spec.server_settings, self.access)
        self.facts["missing"] |= ATTACHED
        self.facts["server"] = self._server_facts(server.version, server.base_url)
        self.model = {**self.model, "name": server.model}
        sampler = SamplerProcess(sampler_spec(self.spec.power, self.gpus, pid=server.server_pid), self.log)
        async with AsyncExitStack() as stack:
            stack.enter_context(sampler)
            stack.push_async_callback(asyncio.sleep, log_tail_s(self.spec.power))
            watch = self._watch(sampler)
            watch.attached = WatchedProcess.of(server.server_pid) if server.server_pid else None
            await watch.wait(1.0)
            await self._load(watch, server.base_url, server.model)
        self.facts["sampler"] = sampler.stop()

    def _watch(self, sampler: SamplerProcess) -> Watchdog:
        self.progress.so_far.power = lambda: labelled_power(sampler.latest())
        return Watchdog(self.progress, sampler)

    def _generated_tokens(self) -> int:
        """The server's own count at the last scrape; where it gives none, that of the answers that have ended."""
        newest = self.poller.newest("generated") if self.poller else None
        return self.load.tokens() if newest is None else int(newest)

    def _server_facts(self, version: str | None, endpoint: str) -> dict[str, Any]:
        return {"name": self.spec.server, "version": version, "endpoint": endpoint}

    async def _load(self, watch: Watchdog, endpoint: str, model: str) -> None:
        """Loaded idle, then the cells, with the server's metrics polled all along.

        Right before and after each cell they are read once more, with nothing in flight, so that what the server
        counted in a cell is known exactly. How long the machine's CPUs were busy in it is noted too.
        """
        self.poller = poller = MetricsPoller(endpoint, self.spec.metrics_interval_s, self.metrics_log, self.access)
        busy_cpu = MachineCpuTime()
        async with AsyncExitStack() as stack:
            await watch.run(stack.enter_async_context(self.load.team(endpoint, model)))
            poller.start()
            stack.push_async_callback(poller.stop)
            self.progress.begin("loaded idle")
            await watch.run(poller.scrape_now())
            if busy := poller.requests():
                self.facts["missing"]["loaded_idle"] = f"others were using the server ({busy:.0f} requests running)"
            else:
                await watch.wait(self.spec.settle_s)
                await self._idle(watch, "loaded_idle", self.spec.loaded_idle_s)
            for cell in self.spec.cells:
                self.under_way = stage_name(cell)
                self.progress.begin(stage_name(cell), closed=cell.arrival.get("process") == "closed")
                await watch.run(poller.scrape_idle())
                before_s, busy_s = time.monotonic(), busy_cpu.seconds()
                times = await watch.run(self.load.run_cell(cell))
                self.facts["machine_cpu"][cell.name] = {
                    "busy_s": busy_cpu.seconds() - busy_s,
                    "wall_s": time.monotonic() - before_s,
                }
                await watch.run(poller.scrape_idle())
                kind = "warmup" if cell.kind == "warmup" else "window"
                self._phase(kind, times.start_ns, times.end_ns, cell.name)
                self._phase("drain", times.end_ns, times.drained_ns, cell.name)

    async def _idle(self, watch: Watchdog, phase: str, duration_s: float) -> None:
        begun_ns = time.monotonic_ns()
        await watch.wait(duration_s)
        self._phase(phase, begun_ns)

    def _phase(self, phase: str, start_ns: int, end_ns: int | None = None, cell: str | None = None) -> None:
        end_ns = time.monotonic_ns() if end_ns is None else end_ns
        self.phases.append({"phase": phase, "cell": cell, "start_ns": start_ns, "end_ns": end_ns})

    def _write(self) -> None:
        output, anchor = self.files.output, self.facts["clock_anchor"]
        counted = finish_log(self.facts.pop("sampler"), self.log, output / "power.parquet")
        self.load.write(output, anchor)
        poller = self.poller
        compact_metrics_log(self.metrics_log, output / "server_metrics.parquet", clock_anchor=anchor)
        write_table(output / "phases.parquet", self.phases, phases.SCHEMA, clock_anchor=anchor)
        cells = {
            cell.name: {
                "kind": cell.kind,
                "workload": cell.workload,
                "arrival": dict(cell.arrival),
                "duration_s": cell.duration_s,
            }
            for cell in self.spec.cells
        }
        warmup = cells.pop("warmup", None)
        write_json(
            output / "session.json",
            {
                "session": self.spec.session,
                "machine": self.spec.machine,
                "mode": self.spec.mode,
                "model": self.model["name"],
                "power": {"interval_s": self.spec.power["interval_s"], **counted},
                "windows": cells,
                "warmup": warmup,
                "characterisation": profiles_of(cards_of(self.gpus)),
                "metrics": {"scrapes": poller.scrapes, "errors": poller.errors, "last_error": poller.last_error}
                if poller
                else None,
                **self.facts,
            },
        )


def run_session(spec: SessionSpec, files: SessionFiles) -> None:
    """Measure a session and write its raw files into `files.output`; logs stay whatever happens.

    Where it fails once load was sent, what was measured until then lies in the folder `partial` of the logs.

    Raises:
        InputError, RunError: see `SessionRun`.
    """
    files.logs.mkdir(parents=True, exist_ok=True)
    clear_partial(files.logs)
    run = SessionRun(spec, files)
    try:
        run_until_signal(run.measure(), lambda name: run.progress.say(f"{name}: stopping the server"))
    except RunError as error:
        if run.under_way is not None:
            keep_partial(files.logs, run.phases, run.under_way, run.facts["clock_anchor"], error)
        raise
