"""`load-test` from start to end: plan, send while showing progress, sum up, print.

This process and the load processes are all there is while load is sent, so it imports neither Arrow nor NumPy. Planning
and summing up, which take 200 MB, are processes of their own before and after; the tables are imported at the end.
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

from rich.console import Console

from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.acquire.load.standalone import CELL, LOGS, LoadRun, LoadRunResult, run_test
from inference_energy.acquire.server.guardian import is_gone
from inference_energy.acquire.server.guardian_client import WatchedProcess
from inference_energy.acquire.session.live_stats import LiveStats
from inference_energy.cli.load.load_test import LoadPlan, LoadTest, SentLoad
from inference_energy.cli.load.progress_view import View, view_for
from inference_energy.cli.load.subprocess_call import call_subprocess
from inference_energy.contracts.io import write_json
from inference_energy.errors import InputError, RunError

if TYPE_CHECKING:
    from inference_energy.acquire.power.sampler_handle import SamplerProcess

PREPARE = "inference_energy.cli.load.prepare:prepare"
SUMMARIZE = "inference_energy.cli.load.summarize:summarize"
POWER_BEYOND_S = 1.0
"""How long power is logged before the first request and after the last."""


def run(test: LoadTest, console: Console) -> dict[str, Any]:
    """Plan, send and sum up; return the summary. With `plan_only` only plan, and return the `LoadPlan`.

    Ctrl-C and SIGTERM end the load early, and so does the end of the server if its process is visible; everything sent
    until then is kept and summed up.

    Raises:
        InputError: an option, the plan, an endpoint or an output file cannot be used; nothing was sent.
        RunError: a process died before anything was sent, or summing up failed; then the logs are kept.
    """
    for path in test.targets:
        ensure_writable(path)
    folder = Path(tempfile.mkdtemp(prefix="load-test-"))
    keep = False
    try:
        argument = {"test": test.as_json(), "folder": str(folder)}
        plan = LoadPlan(**call_subprocess(PREPARE, argument))
        for note in plan.notes:
            console.print(note, markup=False, highlight=False)
        if test.plan_only:
            return asdict(plan)
        sent = _send(test, plan, folder, console)
        keep = True
        with _ignored(signal.SIGINT, signal.SIGTERM):
            summary = call_subprocess(SUMMARIZE, {**argument, "plan": asdict(plan), "sent": asdict(sent)})
        keep = False
        return summary
    except RunError as error:
        if keep:
            error.add_note(f"The logs of the load are kept in {folder}.")
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def show(test: LoadTest, result: dict[str, Any], json_file: str | None) -> None:
    """Print the tables on standard output, or on standard error if the JSON goes to standard output."""
    from inference_energy.present.load_summary import load_summary, plan_summary

    if json_file == "-":
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    elif json_file is not None:
        write_json(Path(json_file), result)
    console = Console(stderr=json_file == "-")
    if test.plan_only:
        console.print(plan_summary(result, dict(zip(("schedule", "prompts"), map(str, test.saved or ()), strict=True))))
    else:
        console.print(load_summary(result))


def check_outcome(summary: dict[str, Any]) -> None:
    """Raise a RunError if the load broke off, or if every request failed."""
    counts = summary["requests"]
    if summary["failure"]:
        raise RunError(f"the load broke off: {summary['failure']}")
    if counts["failed"] and not counts["ok"]:
        first = summary["errors"][0]["error"]
        raise RunError(f"all {counts['failed'] + counts['aborted']} requests failed; most of them: {first}")


def ensure_writable(path: Path) -> None:
    """Make the folder of a file that is written after the measurement, which must not be in vain.

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


def _send(test: LoadTest, plan: LoadPlan, folder: Path, console: Console) -> SentLoad:
    settings = LoadRun(
        endpoints=tuple(plan.endpoints),
        model=plan.model,
        duration_s=test.duration_s,
        warmup_s=test.warmup_s,
        workload=plan.workload,
        client=plan.client,
    )
    shown = _Shown(test, console, closed=not plan.scheduled)
    with _power(test, plan, folder, shown.stats) as sampler:
        with shown.view:
            sent = asyncio.run(_until_stopped(folder, settings, shown, plan.server_pid))
        if sampler is None:
            return sent
        time.sleep(POWER_BEYOND_S)
        stats = sampler.stop()
        return replace(sent, power={"ended_by": stats.ended_by, "faults": stats.faults})


class _Shown:
    """The counts of the current cell, passed to the view."""

    def __init__(self, test: LoadTest, console: Console, *, closed: bool) -> None:
        self._closed = closed
        self._cell = ""
        self._counts: LiveCounts | None = None
        self.stats = LiveStats(load=lambda: self._counts)
        self.view: View = view_for(console, "load-test", [*test.cells.items()], self.stats)

    def tick(self, cell: str, counts: LiveCounts) -> None:
        """Show the counts so far."""
        self._counts = counts
        if cell != self._cell:
            self._cell = cell
            self.view.begin(cell, closed=self._closed)
        self.view.tick()


async def _until_stopped(folder: Path, settings: LoadRun, shown: _Shown, server_pid: int | None) -> SentLoad:
    """Send until the end; SIGINT, SIGTERM or the end of the server stop the load in order."""
    stop = asyncio.Event()
    server = WatchedProcess.of(server_pid) if server_pid else None
    failure: str | None = None

    def stop_sending() -> None:
        if not stop.is_set():
            shown.view.say(f"{failure or 'stopping'}; what was sent so far is kept")
        stop.set()

    def tick(cell: str, counts: LiveCounts) -> None:
        nonlocal failure
        shown.tick(cell, counts)
        if server is not None and not stop.is_set() and is_gone(*server):
            failure = f"the server, process {server.pid}, has ended"
            stop_sending()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop_sending)
    try:
        return replace(_sent_load(await run_test(folder, settings, tick, stop)), failure=failure)
    except RunError as error:
        if not any((folder / LOGS).glob("requests-*.arrows")):
            raise
        return SentLoad(stopped_ns=time.monotonic_ns(), failure=str(error))


def _sent_load(result: LoadRunResult) -> SentLoad:
    times, client = result.times, dict(result.client)
    if CELL not in client["cells"]:
        # Stopped before its end: the CPU time of the processes since they were ready.
        cpu_s = sum(worker["cpu_s"] - (worker["startup_cpu_s"] or 0.0) for worker in client["workers"])
        client["cells"] = {**client["cells"], CELL: {"cpu_s": cpu_s}}
    return SentLoad(
        start_ns=times.start_ns if times else None,
        end_ns=times.end_ns if times else None,
        drained_ns=times.drained_ns if times else None,
        stopped_ns=result.stopped_ns,
        client=client,
        machine_busy_s=result.machine_busy_s,
    )


@contextmanager
def _power(test: LoadTest, plan: LoadPlan, folder: Path, stats: LiveStats) -> Iterator["SamplerProcess | None"]:
    """Run the power sampler around the load, if power is asked for."""
    if test.power is None:
        yield None
        return
    from inference_energy.acquire.power.sampler_handle import SamplerProcess
    from inference_energy.acquire.power.settings import SamplerSpec
    from inference_energy.acquire.session.run import labelled_power

    try:
        spec = SamplerSpec.parse(
            {
                "sources": test.power.sources or "auto",
                "gpus": test.power.gpus or None,
                "modelled": {"tdp_w": test.power.tdp_w, "idle_w": test.power.idle_w},
                "server_pid": plan.server_pid,
            }
        )
        sampler = SamplerProcess(spec, folder / "power.arrows")
        sampler.start()
    except InputError as error:
        raise InputError(f"--power: {error}") from error
    stats.power = lambda: labelled_power(sampler.latest())
    try:
        time.sleep(POWER_BEYOND_S)
        yield sampler
    finally:
        sampler.stop()


@contextmanager
def _ignored(*signals: signal.Signals) -> Iterator[None]:
    """Ignore signals, which would lose the files that are being written."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
