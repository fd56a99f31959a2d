"""A load process: sends its part of a schedule, cell after cell, as its parent orders."""

import asyncio
import gc
import os
import signal
import time
from array import array
from pathlib import Path

import msgspec
import uvloop

from inference_energy.acquire.load.http.client import LoadClient
from inference_energy.acquire.load.loops import RequestRepeater, RequestSender, run_cell
from inference_energy.acquire.load.pacer import Pacer
from inference_energy.acquire.load.request_log import RequestLogger
from inference_energy.acquire.load.schedule_partition import SchedulePartition
from inference_energy.acquire.load.settings import LoadSpec
from inference_energy.acquire.load.worker_messages import CellTimes, Done, Ended, Order, Ready, RunCell, Stats, StopCell
from inference_energy.acquire.load.worker_runtime import (
    allow_many_connections,
    cpu_s,
    peak_rss_bytes,
    run_maintenance,
    send_lag,
    tune_process,
)
from inference_energy.contracts.child_process import emit, try_emit

STDIN = 0
STATS_PERIOD_S = 0.25


class Orders:
    """The orders from the parent, in the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._orders: asyncio.Queue[Order | None] = asyncio.Queue()
        self._decode = msgspec.json.Decoder(Order).decode
        self._rest = b""
        os.set_blocking(STDIN, False)
        self._loop.add_reader(STDIN, self._read)

    async def next(self) -> Order | None:
        """Return the next order; None, and from then on always, once the parent is gone."""
        order = await self._orders.get()
        if order is None:
            self._orders.put_nowait(None)
        return order

    def close(self) -> None:
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
            self.close()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._orders.put_nowait(self._decode(line))


class Worker:
    """One load process.

    Args:
        spec: the load.
        worker: number of this process, from 0.

    Raises:
        InputError: the plan cannot be used.
    """

    def __init__(self, spec: LoadSpec, worker: int) -> None:
        self._spec = spec
        self._worker = worker
        apis = {name: cell.workload.api for name, cell in spec.cells.items()}
        self._partition = SchedulePartition(Path(spec.schedule), Path(spec.prompts), apis, worker, spec.workers)
        self._repeater = RequestRepeater(self._partition.first_id, worker, spec.workers)
        self._log = RequestLogger(Path(spec.folder), worker)
        self._lateness_ns = array("q")

    async def run(self) -> None:
        """Carry out orders until there are no more."""
        orders = Orders()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, orders.close)
        pacer = Pacer()
        begun_s = time.monotonic()
        try:
            client = LoadClient(
                self._spec.endpoints_from(self._worker),
                self._spec.model,
                self._spec.client_with_key(os.environ),
                observer=self._log,
            )
            async with client:
                emit(**msgspec.to_builtins(Ready(cpu_s(), pacer.kernel)))
                while isinstance(order := await orders.next(), RunCell | StopCell):
                    if isinstance(order, RunCell):  # a late order to stop has no cell to end
                        await self._run_cell(order, client, pacer, orders)
        finally:
            pacer.close()
            self._log.close()
        ended = Ended(cpu_s(), time.monotonic() - begun_s, peak_rss_bytes(), send_lag(self._lateness_ns))
        emit(**msgspec.to_builtins(ended))

    async def _run_cell(self, order: RunCell, client: LoadClient, pacer: Pacer, orders: Orders) -> None:
        """Run one cell to its end, or until an order to stop comes or the parent is gone."""
        cell, log = self._spec.cells[order.cell], self._log
        workload = cell.workload
        log.begin_cell(chunk_times=workload.chunk_times, keep_answers=workload.keep_answers)
        self._repeater.salt = not workload.prefix_reuse
        begun_cpu_s = cpu_s()
        work = asyncio.create_task(
            run_cell(
                self._partition.cells[order.cell],
                pacer,
                RequestSender(client, workload, log, self._worker),
                self._repeater,
                start_ns=order.start_ns,
                duration_s=cell.duration_s,
                drain_s=self._spec.drain_s,
                keep_history=workload.history == "actual" and workload.api == "chat",
            )
        )
        stopped = asyncio.create_task(orders.next())
        maintenance = asyncio.create_task(run_maintenance(log, pacer))
        times: CellTimes | None = None
        try:
            while not work.done() and not stopped.done():
                await asyncio.wait(
                    {work, stopped, maintenance}, timeout=STATS_PERIOD_S, return_when=asyncio.FIRST_COMPLETED
                )
                try_emit(**msgspec.to_builtins(Stats(log.counts)))
                if maintenance.done():
                    maintenance.result()  # a log that cannot be written ends the run
            if work.done():
                times = work.result()
        finally:
            for task in (maintenance, stopped, work):
                task.cancel()
            await asyncio.gather(maintenance, stopped, work, return_exceptions=True)
        log.flush()
        gc.collect()
        self._lateness_ns.extend(log.lateness_ns)
        done = Done(
            cell=order.cell,
            end_ns=times.end_ns if times else None,
            drained_ns=times.drained_ns if times else None,
            cpu_s=cpu_s() - begun_cpu_s,
            lateness=send_lag(log.lateness_ns),
            counts=log.counts,
        )
        emit(**msgspec.to_builtins(done))


def run(spec: Path, number: int) -> None:
    """Be one load process until the end.

    Args:
        spec: the load, a file.
        number: number of this process, from 0.

    Raises:
        InputError: the plan or the settings cannot be used.
    """
    worker = Worker(LoadSpec.read(spec), number)
    allow_many_connections()
    tune_process()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(worker.run())
