"""A load process: sends its part of a schedule, cell after cell, as its parent orders.

Orders come in as JSON lines on standard input, events go out as JSON lines on standard output.
"""

import asyncio
import gc
import json
import os
import select
import signal
import time
from array import array
from pathlib import Path
from typing import Any

import uvloop

from inference_energy.acquire.load.http.client import LoadClient
from inference_energy.acquire.load.live_counts import CellTimes
from inference_energy.acquire.load.loops import RequestRepeater, RequestSender, run_cell
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

STDIN, STDOUT = 0, 1


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


def say(event: str, **facts: Any) -> None:
    """Write one event; waits for a parent that is slow to read, and is lost where there is none."""
    line = _line(event, facts)
    try:
        while line:
            line = line[os.write(STDOUT, line) :]
    except OSError:
        return


def say_if_room(event: str, **facts: Any) -> None:
    """Write one event that may be lost: a parent that does not read must not stop the load."""
    line = _line(event, facts)
    writable = select.poll()
    writable.register(STDOUT, select.POLLOUT)
    # A pipe is writable when so many bytes fit that a line not longer than these is written whole or not at all.
    if len(line) <= select.PIPE_BUF and writable.poll(0):
        say(event, **facts)


def _line(event: str, facts: dict[str, Any]) -> bytes:
    return (json.dumps({"event": event, **facts}) + "\n").encode()


STATS_PERIOD_S = 0.25


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
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, orders.hang_up)
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
                say("ready", cpu_s=cpu_s(), kernel_timer=pacer.kernel)
                while (order := await orders.next()) is not None and order["do"] != "end":
                    if order["do"] == "run":
                        await self._cell(order["cell"], order["start_ns"], client, pacer, orders)
        finally:
            pacer.close()
            self._log.close()
        say(
            "ended",
            cpu_s=cpu_s(),
            wall_s=time.monotonic() - begun_s,
            peak_rss_bytes=peak_rss_bytes(),
            lateness=lateness(self._lateness_ns),
        )

    async def _cell(self, name: str, start_ns: int, client: LoadClient, pacer: Pacer, orders: Orders) -> None:
        """Run one cell to its end, or until an order to stop comes or the parent is gone."""
        cell = self._spec.cells[name]
        workload = cell.workload
        self._log.begin_cell(chunk_times=workload.chunk_times, keep_answers=workload.keep_answers)
        self._repeater.salt = not workload.prefix_reuse
        begun_cpu_s = cpu_s()
        work = asyncio.create_task(
            run_cell(
                self._partition.cells[name],
                pacer,
                RequestSender(client, workload, self._log, self._worker),
                self._repeater,
                start_ns=start_ns,
                duration_s=cell.duration_s,
                drain_s=self._spec.drain_s,
                keep_history=workload.history == "actual" and workload.api == "chat",
            )
        )
        stopped = asyncio.create_task(orders.next())
        housekeeping = asyncio.create_task(run_maintenance(self._log, pacer))
        times: CellTimes | None = None
        try:
            while not work.done() and not stopped.done():
                await asyncio.wait({work, stopped}, timeout=STATS_PERIOD_S, return_when=asyncio.FIRST_COMPLETED)
                say_if_room("stats", **self._log.counts.as_dict())
            if work.done():
                times = work.result()
        finally:
            for task in (housekeeping, stopped, work):
                task.cancel()
            await asyncio.gather(housekeeping, stopped, work, return_exceptions=True)
        self._log.flush()
        gc.collect()
        self._lateness_ns.extend(self._log.lateness_ns)
        say(
            "done",
            cell=name,
            end_ns=times.end_ns if times else None,
            drained_ns=times.drained_ns if times else None,
            cpu_s=cpu_s() - begun_cpu_s,
            lateness=lateness(self._log.lateness_ns),
            counts=self._log.counts.as_dict(),
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
