"""The worker's side of its pipes: orders come in as JSON lines on standard input, events go out on standard output.

The worker's side of its pipes: orders come in as JSON lines on standard input, events go out on standard output.

Sends one cell's requests with the client, and records those that are not sent.

A load process: reads its share of a schedule, then sends cell after cell as its parent orders.

"""

import asyncio
import gc
import json
import os
import signal
import time
from array import array
from pathlib import Path
from typing import Any

import uvloop

from inference_energy.acquire.load.http.client import LoadClient, RequestResult
from inference_energy.acquire.load.http.request import (
    PlannedRequest,
    RequestRecord,
    WorkloadSettings,
    assistant_message,
)
from inference_energy.acquire.load.loops import CellTimes, RequestRepeater, run_cell
from inference_energy.acquire.load.pacer import Pacer
from inference_energy.acquire.load.request_log import RequestLogger
from inference_energy.acquire.load.schedule_partition import SchedulePartition
from inference_energy.acquire.load.settings import LoadSpec
from inference_energy.acquire.load.worker_runtime import (
    allow_many_connections,
    cpu_s,
    lateness,
    peak_rss_bytes,
    run_maintenance,
    tune_process,
)
from inference_energy.contracts.child_process import emit, try_emit

STDIN = 0


class Orders:
    """The orders from the parent, in the running event loop.

    Orders: `run` (`cell`, `start_ns`), `stop` (end the cell at once, cutting off what is in flight), `end`.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._orders: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._rest = b""
        os.set_blocking(STDIN, False)
        self._loop.add_reader(STDIN, self._read)

    async def next(self) -> dict[str, Any] | None:
        """The next order; None, and from then on always, once the parent is gone."""
        order = await self._orders.get()
        if order is None:
            self._orders.put_nowait(None)
        return order

    def hang_up(self) -> None:
        """Behave as if the parent were gone."""
        self._loop.remove_reader(STDIN)
        self._orders.put_nowait(None)

    def _read(self) -> None:
        try:
            data = os.read(STDIN, 1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.hang_up()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._orders.put_nowait(json.loads(line))


class RequestSender:
    """A `loops.sending.Sender` for one cell.

    Args:
        client: an open client that tells `recorder` of its requests.
        workload: the cell's.
        recorder: also told of requests that are skipped.
        worker: which process this is.
    """

    def __init__(self, client: LoadClient, workload: WorkloadSettings, recorder: RequestLogger, worker: int) -> None:
        self._client = client
        self._workload = workload
        self._recorder = recorder
        self._worker = worker

    async def send(self, request: PlannedRequest, scheduled_ns: int, history: bytes = b"") -> RequestResult:
        """See `Sender`."""
        self._recorder.counts.offered += 1
        return await self._client.send(request, self._workload, scheduled_ns, self._worker, history)

    def skip(self, request: PlannedRequest, scheduled_ns: int, reason: str) -> None:
        """See `Sender`."""
        record = RequestRecord(
            request_id=request.request_id,
            cell=request.cell,
            worker=self._worker,
            endpoint="",
            prompt_id=request.prompt_id,
            turn=request.turn,
            scheduled_ns=scheduled_ns,
            status="skipped",
            error=reason,
            conversation=request.conversation,
            user=request.user,
        )
        self._recorder.ended(record, None)

    def extended(self, history: bytes, request: PlannedRequest, text: str | None) -> bytes:
        """See `Sender`."""
        parts = [history, request.prompt, assistant_message(text or "")]
        return b",".join(part for part in parts if part)


STATS_PERIOD_S = 0.25


class Worker:
    """One load process.

    Args:
        spec: the team's.
        worker: which process this is, from 0.

    Raises:
        InputError: the plan cannot be used.
    """

    def __init__(self, spec: LoadSpec, worker: int) -> None:
        self._spec = spec
        self._worker = worker
        self._settings = {name: cell.settings() for name, cell in spec.cells.items()}
        apis = {name: settings.api for name, settings in self._settings.items()}
        self._share = SchedulePartition(Path(spec.schedule), Path(spec.prompts), apis, worker, spec.workers)
        self._repeater = RequestRepeater(self._share.first_id, worker, spec.workers)
        self._recorder = RequestLogger(Path(spec.folder), worker)
        self._lateness_ns = array("q")

    async def run(self) -> None:
        """Carry out orders until there are no more."""
        orders = Orders()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, orders.hang_up)
        pacer = Pacer()
        begun_s = time.monotonic()
        try:
            client = LoadClient(
                self._spec.endpoints_from(self._worker),
                self._spec.model,
                self._spec.client(os.environ),
                observer=self._recorder,
            )
            async with client:
                emit("ready", cpu_s=cpu_s(), kernel_timer=pacer.kernel)
                while (order := await orders.next()) is not None and order["do"] != "end":
                    if order["do"] == "run":
                        await self._cell(order["cell"], order["start_ns"], client, pacer, orders)
        finally:
            pacer.close()
            self._recorder.close()
        emit(
            "ended",
            cpu_s=cpu_s(),
            wall_s=time.monotonic() - begun_s,
            peak_rss_bytes=peak_rss_bytes(),
            lateness=lateness(self._lateness_ns),
        )

    async def _cell(self, name: str, start_ns: int, client: LoadClient, pacer: Pacer, orders: Orders) -> None:
        """Run one cell to its end, or until an order to stop comes or the parent is gone."""
        cell, settings = self._spec.cells[name], self._settings[name]
        self._recorder.begin_cell(chunk_times=settings.chunk_times, keep_answers=settings.keep_answers)
        self._repeater.salt = not cell.prefix_reuse
        begun_cpu_s = cpu_s()
        work = asyncio.create_task(
            run_cell(
                self._share.cells[name],
                pacer,
                RequestSender(client, settings, self._recorder, self._worker),
                self._repeater,
                start_ns=start_ns,
                duration_s=cell.duration_s,
                drain_s=self._spec.drain_s,
                keep_history=settings.history == "actual" and settings.api == "chat",
            )
        )
        stopped = asyncio.create_task(orders.next())
        housekeeping = asyncio.create_task(run_maintenance(self._recorder, pacer))
        times: CellTimes | None = None
        try:
            while not work.done() and not stopped.done():
                await asyncio.wait({work, stopped}, timeout=STATS_PERIOD_S, return_when=asyncio.FIRST_COMPLETED)
                try_emit("stats", **self._recorder.counts.as_dict())
            if work.done():
                times = work.result()
        finally:
            for task in (housekeeping, stopped, work):
                task.cancel()
            await asyncio.gather(housekeeping, stopped, work, return_exceptions=True)
        self._recorder.flush()
        gc.collect()
        self._lateness_ns.extend(self._recorder.lateness_ns)
        emit(
            "done",
            cell=name,
            end_ns=times.end_ns if times else None,
            drained_ns=times.drained_ns if times else None,
            cpu_s=cpu_s() - begun_cpu_s,
            lateness=lateness(self._recorder.lateness_ns),
            counts=self._recorder.counts.as_dict(),
        )


def run(spec: Path, number: int) -> None:
    """Be one load process until the end.

    Args:
        spec: the team's specification, a file.
        number: which process this is, from 0.

    Raises:
        InputError: the plan or the settings cannot be used.
    """
    worker = Worker(LoadSpec.read(spec), number)
    allow_many_connections()
    tune_process()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(worker.run())
