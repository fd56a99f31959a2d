"""What `load-test` prints and writes at the end, and how it ends.

What `load-test` prints and writes at the end, and how it ends.

`load-test` from start to end: plan, send while showing how it goes, sum up.

This process and the load processes are all there is while load is sent. Planning and summing up, which need a lot of
memory, are processes of their own before and after.
"""

import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console

from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.acquire.load.standalone import CELL, LOGS, LoadRun, LoadRunResult, run_plan
from inference_energy.acquire.server.guardian import is_gone
from inference_energy.acquire.server.guardian_client import WatchedProcess
from inference_energy.acquire.session.live_stats import LiveStats, labelled_power
from inference_energy.cli.load.options import LoadOptions, LoadPlan, SentLoad
from inference_energy.cli.load.render import View, view_for
from inference_energy.cli.load.subprocess_call import call_subprocess
from inference_energy.config.load.client import ClientConfig
from inference_energy.contracts.io import atomic_write
from inference_energy.contracts.load_client import WorkloadSettings
from inference_energy.errors import InputError, RunError
from inference_energy.present.load_summary import load_summary, plan_summary

if TYPE_CHECKING:
    from inference_energy.acquire.power.sampler_handle import SamplerProcess


def show(options: LoadOptions, found: dict[str, Any], json_file: str | None) -> None:
    """The tables on standard output, or on standard error where the JSON goes there."""
    if json_file == "-":
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    elif json_file is not None:
        _write(Path(json_file), found)
    console = Console(stderr=json_file == "-")
    if options.plan_only:
        files = dict(zip(("schedule", "prompts"), map(str, options.saved or ()), strict=True))
        console.print(plan_summary(found, files))
    else:
        console.print(load_summary(found))


def end(summary: dict[str, Any]) -> None:
    """The exit code: a load that broke off, and one of which every request failed, is a failure.

    Raises:
        RunError: it is one.
    """
    counts = summary["requests"]
    if summary["failure"]:
        raise RunError(f"the load broke off: {summary['failure']}")
    if counts["failed"] and not counts["ok"]:
        first = summary["errors"][0]["error"]
        raise RunError(f"all {counts['failed'] + counts['aborted']} requests failed; most of them: {first}")


def _write(path: Path, found: dict[str, Any]) -> None:
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")


POWER_BEYOND_S = 1.0
"""How long power is logged before the first request and after the last."""


def run(options: LoadOptions, console: Console) -> dict[str, Any]:
    """Plan, send and sum up; with `plan_only` only the first, which returns a `Prepared`.

    Ctrl-C and SIGTERM end the load early, and so does the end of the server where its process can be seen; what was
    sent so far is kept and summed up.

    Raises:
        InputError: an option, the plan, an endpoint or a place for a file cannot be used; nothing was sent.
        RunError: a process died before anything was sent, or the summing up failed: then the logs are left.
    """
    for path in options.targets:
        ensure_writable(path)
    folder = Path(tempfile.mkdtemp(prefix="load-test-"))
    keep = False
    try:
        question = {"options": options.as_json(), "folder": str(folder)}
        prepared = LoadPlan(**call_subprocess("prepare", question))
        for note in prepared.notes:
            console.print(note, markup=False, highlight=False)
        if options.plan_only:
            return asdict(prepared)
        sent = _send(options, prepared, folder, console)
        keep = True
        with _ignored(signal.SIGINT, signal.SIGTERM):
            found = call_subprocess("summarize", {**question, "prepared": asdict(prepared), "sent": asdict(sent)})
        keep = False
        return found
    except RunError as error:
        if keep:
            error.add_note(f"The logs of the load are kept in {folder}.")
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def ensure_writable(path: Path) -> None:
    """Make the folder of a file to be written later, so that nothing is measured in vain.

    Raises:
        InputError: nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; name another place") from error
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")


def _send(options: LoadOptions, prepared: LoadPlan, folder: Path, console: Console) -> SentLoad:
    settings = LoadRun(
        endpoints=tuple(prepared.endpoints),
        model=prepared.model,
        duration_s=options.duration,
        warmup_s=options.warmup,
        workload=WorkloadSettings(**prepared.workload),
        client=ClientConfig.model_validate(prepared.client),
    )
    shown = _Shown(options, console, closed=not prepared.scheduled)
    with _power(options, prepared, folder, shown.so_far) as sampler:
        with shown.view:
            sent = asyncio.run(_until_stopped(folder, settings, shown, prepared.server_pid))
        if sampler is None:
            return sent
        time.sleep(POWER_BEYOND_S)
        stats = sampler.stop()
        return replace(sent, power={"ended_by": stats.ended_by, "faults": stats.faults})


class _Shown:
    """Takes the counts of the cell under way to the view."""

    def __init__(self, options: LoadOptions, console: Console, *, closed: bool) -> None:
        self._closed = closed
        self._cell = ""
        self._counts: LiveCounts | None = None
        self.so_far = LiveStats(load=lambda: self._counts)
        self.view: View = view_for(console, "load-test", [*options.cells.items()], self.so_far)

    def tick(self, cell: str, counts: LiveCounts) -> None:
        """The counts so far."""
        self._counts = counts
        if cell != self._cell:
            self._cell = cell
            self.view.begin(cell, closed=self._closed)
        self.view.tick()


async def _until_stopped(folder: Path, settings: LoadRun, shown: _Shown, server_pid: int | None) -> SentLoad:
    """Send until the end, or until SIGINT, SIGTERM or the end of the server, which stop the load in order."""
    stop = asyncio.Event()
    server = WatchedProcess.of(server_pid) if server_pid else None
    failure: str | None = None

    def stopped() -> None:
        if not stop.is_set():
            shown.view.say(f"{failure or 'stopping'}; what was sent so far is kept")
        stop.set()

    def tick(cell: str, counts: LiveCounts) -> None:
        nonlocal failure
        shown.tick(cell, counts)
        if server is not None and not stop.is_set() and is_gone(*server):
            failure = f"the server, process {server.pid}, has ended"
            stopped()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped)
    try:
        return replace(_sent(await run_plan(folder, settings, tick, stop)), failure=failure)
    except RunError as error:
        if not any((folder / LOGS).glob("requests-*.arrows")):
            raise
        return SentLoad(stopped_ns=time.monotonic_ns(), failure=str(error))


def _sent(result: LoadRunResult) -> SentLoad:
    times, client = result.times, msgspec.to_builtins(result.client)
    if CELL not in client["cells"]:
        # Stopped: all that the processes took since they were ready.
        took = sum(worker["cpu_s"] - (worker["startup_cpu_s"] or 0.0) for worker in client["workers"])
        client["cells"] = {**client["cells"], CELL: {"cpu_s": took}}
    return SentLoad(
        start_ns=times.start_ns if times else None,
        end_ns=times.end_ns if times else None,
        drained_ns=times.drained_ns if times else None,
        stopped_ns=result.stopped_ns,
        client=client,
        machine_busy_s=result.machine_busy_s,
    )


@contextmanager
def _power(
    options: LoadOptions, prepared: LoadPlan, folder: Path, so_far: LiveStats
) -> Iterator["SamplerProcess | None"]:
    """The power sampler around the load, where power is asked for."""
    if not options.power:
        yield None
        return
    from inference_energy.acquire.power.sampler_handle import SamplerProcess
    from inference_energy.acquire.power.settings import SamplerSpec

    try:
        spec = SamplerSpec.parse(
            {
                "sources": list(options.power_source) or "auto",
                "gpus": list(options.gpu) or None,
                "modelled": {"tdp_w": options.tdp_w, "idle_w": options.idle_w or 0.0},
                "server_pid": prepared.server_pid,
            }
        )
        sampler = SamplerProcess(spec, folder / "power.arrows")
        sampler.start()
    except InputError as error:
        raise InputError(f"--power: {error}") from error
    so_far.power = lambda: labelled_power(sampler.latest())
    try:
        time.sleep(POWER_BEYOND_S)
        yield sampler
    finally:
        sampler.stop()


@contextmanager
def _ignored(*signals: signal.Signals) -> Iterator[None]:
    """Within, signals do nothing: what is being written would be lost."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
