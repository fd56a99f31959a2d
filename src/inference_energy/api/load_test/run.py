"""Run a load test from start to end: plan, send, sum up.

Only this process and the load processes run while load is sent, so this one imports neither Arrow nor NumPy. Planning
and summing up, which take 200 MB, are separate processes before and after.
"""

import asyncio
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.acquire.load.standalone import CELL, LOGS, LoadRun, LoadRunResult, run_plan
from inference_energy.acquire.server.guardian import is_gone
from inference_energy.acquire.server.guardian_client import WatchedProcess
from inference_energy.api.load_test.settings import LoadPlan, LoadTest, SentLoad, with_own_keys
from inference_energy.api.load_test.subprocess_call import call_subprocess
from inference_energy.contracts.documents.by_hand import LoadTestDocument
from inference_energy.contracts.documents.document import document_from_dict
from inference_energy.contracts.documents.session import LoadCell
from inference_energy.contracts.figure import json_values
from inference_energy.contracts.io import ensure_writable
from inference_energy.errors import InputError, Notice, RunError

if TYPE_CHECKING:
    from inference_energy.acquire.power.sampler_handle import SamplerProcess

PREPARE = "inference_energy.api.load_test.prepare:prepare"
SUMMARIZE = "inference_energy.api.load_test.summarize:summarize"
POWER_BEYOND_S = 1.0
"""Time for which power is logged before the first request and after the last."""


class Display:
    """Receiver of a load test's progress; this one shows nothing."""

    def note(self, notice: Notice) -> None:
        """Show what the plan left out."""

    def begin(self, *, closed: bool, power: Callable[[], Mapping[str, float]] | None) -> None:
        """Begin to show a load; `power` returns the latest power by domain [W], if it is logged."""

    def tick(self, cell: str, counts: LiveCounts) -> None:
        """Show the present counts of a cell."""

    def say(self, text: str) -> None:
        """Show a message at once."""

    def end(self) -> None:
        """Show nothing more."""


def plan_load(test: LoadTest, display: Display | None = None) -> LoadPlan:
    """Write the schedule and the prompts of a load test, and send nothing.

    Raises:
        InputError: a setting, the plan or an output file cannot be used.
        RunError: planning failed.
        TypeError: `test` is no LoadTest.
    """
    test = _load_test(test).model_copy(update={"plan_only": True})
    for path in test.targets:
        ensure_writable(path)
    with tempfile.TemporaryDirectory(prefix="load-test-", ignore_cleanup_errors=True) as folder:
        return _plan({"test": test.as_json(), "folder": folder}, display or Display())


def run_load(test: LoadTest, display: Display | None = None) -> LoadTestDocument:
    """Plan, send and sum up a load; return the summary.

    It returns when all has ended, also where an event loop runs, as in a notebook: it has a loop of its own, and the
    running one waits. `await asyncio.to_thread(run_load, test)` lets the running one go on.

    Ctrl-C and SIGTERM end the load early if it was called in the main thread, where Python handles signals, and so does
    the end of the server if its process is visible; everything sent until then is kept and summed up.

    Raises:
        InputError: a setting, the plan, an endpoint or an output file cannot be used; nothing was sent.
        RunError: a process died before anything was sent, or summing up failed; then the logs are kept.
        TypeError: `test` is no LoadTest.
    """
    if _load_test(test).plan_only:
        raise InputError("set, so nothing would be sent; leave it out, or call plan_load", key="plan_only")
    display = display or Display()
    for path in test.targets:
        ensure_writable(path)
    folder = Path(tempfile.mkdtemp(prefix="load-test-"))
    keep = False
    try:
        argument = {"test": test.as_json(), "folder": str(folder)}
        plan = _plan(argument, display)
        sent = _send(test, plan, folder, display)
        keep = True
        with _ignored(signal.SIGINT, signal.SIGTERM):
            content = call_subprocess(SUMMARIZE, {**argument, "plan": json_values(plan), "sent": json_values(sent)})
        summary = document_from_dict(content, LoadTestDocument, "the summary of the load test")
        keep = False
        return summary
    except RunError as error:
        if keep:
            error.add_note(f"The logs of the load are kept in {folder}.")
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _load_test(test: object) -> LoadTest:
    """Return the argument if it is a load test.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(test, LoadTest):
        raise TypeError(f"test: a LoadTest is expected, not {type(test).__name__}; write LoadTest(endpoints=..., ...)")
    return test


def _plan(argument: dict[str, Any], display: Display) -> LoadPlan:
    try:
        plan = LoadPlan.from_dict(call_subprocess(PREPARE, argument))
    except InputError as error:
        notice = with_own_keys(error.notice)
        raise InputError(notice.text, key=notice.key, write=notice.write) from error
    for notice in plan.notes:
        display.note(notice)
    return plan


def _send(test: LoadTest, plan: LoadPlan, folder: Path, display: Display) -> SentLoad:
    settings = LoadRun(
        endpoints=tuple(plan.endpoints),
        model=plan.model,
        duration_s=test.duration_s,
        warmup_s=test.warmup_s,
        workload=plan.workload,
        client=test.client,
    )
    with _power(test, plan, folder) as sampler:
        display.begin(closed=not plan.scheduled, power=None if sampler is None else _labelled(sampler))
        try:
            with StopSignals() as signals:
                sent = _in_own_loop(_until_stopped(folder, settings, display, plan.server_pid, signals))
        finally:
            display.end()
        if sampler is None:
            return sent
        time.sleep(POWER_BEYOND_S)
        return replace(sent, power_faults=sampler.stop().faults)


class StopSignals:
    """SIGINT and SIGTERM as calls in an event loop, which may run in another thread than the main one.

    As a context manager it takes the signals until the end of the block. In another thread than the main one, where
    Python handles no signals, it does nothing.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._came = False
        self._tell: Callable[[], object] = lambda: None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        _restore(self._before)

    def call(self, function: Callable[[], None]) -> None:
        """Call a function in the running event loop at every signal, at once if one has come."""
        loop = asyncio.get_running_loop()
        self._tell = lambda: loop.call_soon_threadsafe(function)
        if self._came:
            function()

    def _take(self, *_: object) -> None:
        self._came = True
        with suppress(RuntimeError):  # the loop has ended, and the load with it
            self._tell()


def _in_own_loop(sending: Coroutine[Any, Any, SentLoad]) -> SentLoad:
    """Run a coroutine in a new event loop, in a thread of its own if this one runs a loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(sending)
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, sending).result()


async def _until_stopped(
    folder: Path, settings: LoadRun, display: Display, server_pid: int | None, signals: StopSignals
) -> SentLoad:
    """Send until the end; SIGINT, SIGTERM or the end of the server stop the load early, and the records are kept."""
    stop = asyncio.Event()
    server = WatchedProcess.of(server_pid) if server_pid else None
    failure: str | None = None

    def stop_sending() -> None:
        if not stop.is_set():
            display.say(f"{failure or 'stopping'}; what was sent so far is kept")
        stop.set()

    def tick(cell: str, counts: LiveCounts) -> None:
        nonlocal failure
        display.tick(cell, counts)
        if server is not None and not stop.is_set() and is_gone(*server):
            failure = f"the server, process {server.pid}, has ended"
            stop_sending()

    signals.call(stop_sending)
    try:
        return replace(_sent_load(await run_plan(folder, settings, tick, stop)), failure=failure)
    except RunError as error:
        if not any((folder / LOGS).glob("requests-*.arrows")):
            raise
        return SentLoad(stopped_ns=time.monotonic_ns(), failure=str(error))


def _sent_load(result: LoadRunResult) -> SentLoad:
    times, client = result.times, result.client
    if CELL not in client.cells:
        # Stopped before its end: the CPU time of the processes since they were ready.
        cpu_s = sum((worker.cpu_s or 0.0) - (worker.startup_cpu_s or 0.0) for worker in client.workers or ())
        client = msgspec.structs.replace(client, cells={**client.cells, CELL: LoadCell(cpu_s=cpu_s)})
    return SentLoad(
        start_ns=times.start_ns if times else None,
        end_ns=times.end_ns if times else None,
        drained_ns=times.drained_ns if times else None,
        stopped_ns=result.stopped_ns,
        client=client,
        machine_busy_s=result.machine_busy_s,
    )


@contextmanager
def _power(test: LoadTest, plan: LoadPlan, folder: Path) -> Iterator["SamplerProcess | None"]:
    """Run the power sampler around the load, if the test logs power."""
    if test.power is None:
        yield None
        return
    from inference_energy.acquire.power.sampler_handle import SamplerProcess
    from inference_energy.acquire.power.settings import SamplerSpec

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
        raise InputError(str(error), key="power") from error
    try:
        time.sleep(POWER_BEYOND_S)
        yield sampler
    finally:
        sampler.stop()


def _labelled(sampler: "SamplerProcess") -> Callable[[], Mapping[str, float]]:
    from inference_energy.acquire.session.live_stats import labelled_power

    return lambda: labelled_power(sampler.latest())


@contextmanager
def _ignored(*signals: signal.Signals) -> Iterator[None]:
    """Ignore signals, which would lose the files that are being written; only the main thread gets any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    try:
        yield
    finally:
        _restore(before)


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None:  # None: not set by Python, which cannot set it again
            signal.signal(number, handler)
