"""A load process: reads its share of a schedule, then sends cell after cell as its parent orders."""

import asyncio
import gc
import os
import signal
import time
from array import array
from pathlib import Path

import uvloop

from inference_energy.acquire.load.exchange.client import LoadClient
from inference_energy.acquire.load.log.recorder import Recorder
from inference_energy.acquire.load.loops.cell import CellTimes, run_cell
from inference_energy.acquire.load.loops.repeat import Repeater
from inference_energy.acquire.load.pacer.pacer import Pacer
from inference_energy.acquire.load.worker.control import Orders, say, say_if_room
from inference_energy.acquire.load.worker.footprint import cpu_s, lateness, peak_rss_bytes
from inference_energy.acquire.load.worker.housekeeping import allow_many_connections, keep_house, stay_calm
from inference_energy.acquire.load.worker.sender import CellSender
from inference_energy.acquire.load.worker.share import Share
from inference_energy.acquire.load.worker.spec import LoadSpec

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
        self._share = Share(Path(spec.schedule), Path(spec.prompts), apis, worker, spec.workers)
        self._repeater = Repeater(self._share.first_id, worker, spec.workers)
        self._recorder = Recorder(Path(spec.folder), worker)
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
                say("ready", cpu_s=cpu_s(), kernel_timer=pacer.kernel)
                while (order := await orders.next()) is not None and order["do"] != "end":
                    if order["do"] == "run":
                        await self._cell(order["cell"], order["start_ns"], client, pacer, orders)
        finally:
            pacer.close()
            self._recorder.close()
        say(
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
                CellSender(client, settings, self._recorder, self._worker),
                self._repeater,
                start_ns=start_ns,
                duration_s=cell.duration_s,
                drain_s=self._spec.drain_s,
                keep_history=settings.history == "actual" and settings.api == "chat",
            )
        )
        stopped = asyncio.create_task(orders.next())
        housekeeping = asyncio.create_task(keep_house(self._recorder, pacer))
        times: CellTimes | None = None
        try:
            while not work.done() and not stopped.done():
                await asyncio.wait({work, stopped}, timeout=STATS_PERIOD_S, return_when=asyncio.FIRST_COMPLETED)
                say_if_room("stats", **self._recorder.counts.as_dict())
            if work.done():
                times = work.result()
        finally:
            for task in (housekeeping, stopped, work):
                task.cancel()
            await asyncio.gather(housekeeping, stopped, work, return_exceptions=True)
        self._recorder.flush()
        gc.collect()
        self._lateness_ns.extend(self._recorder.lateness_ns)
        say(
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
    stay_calm()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(worker.run())
