"""Live server that answers as vLLM does, computes nothing, and knows the true cost of each request.

    python -m inference_energy.bench.live.server --model FOLDER_OR_SHAPE --served-model-name N --host H --port P [...]

The node, with its GPU, engine, faults and seed, is that of `$INFERENCE_ENERGY_SIMULATED`, else of `--node FILE`, else
the default one; vLLM's flags change it. Its power and energy are simulated.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any

from aiohttp import web

from inference_energy.bench.live.endpoints import VERSION, Endpoints
from inference_energy.bench.live.engine_loop import EngineLoop
from inference_energy.bench.live.flags import ServerSettings, parse_command_line
from inference_energy.bench.live.live_request import TruthSink
from inference_energy.bench.live.metrics import EngineMetrics, log_stats
from inference_energy.bench.live.power_trace_file import TraceWriter
from inference_energy.bench.live.protocol import RequestFaults
from inference_energy.bench.live.tokens import Tokenizer
from inference_energy.bench.truth.engine import BenchEngine
from inference_energy.bench.truth.step import StepPhysics
from inference_energy.errors import InputError

KEEP_ALIVE_S = 5.0
"""Uvicorn's default: idle connections are closed after this time."""

SWITCH_INTERVAL_S = 0.0005
YOUNG_OBJECTS = 10_000

log = logging.getLogger("inference_energy.bench.live")


async def serve(settings: ServerSettings, physics: StepPhysics) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    started_ns = time.monotonic_ns()
    engine = BenchEngine(physics, started_ns)
    metrics = EngineMetrics(engine, settings.served_names[0], settings.mfu_metrics)
    truth = _truth(settings, engine, started_ns)
    trace = None if settings.traces is None else TraceWriter(settings.traces, os.getpid())
    engine_loop = EngineLoop(engine, loop, metrics, trace, truth)
    truth.start()
    faults = RequestFaults(settings.node.faults.server)
    runner: web.AppRunner | None = None
    code = 0
    try:
        if await _stopped_within(stop, faults.settings.start_delay_s):
            return code
        engine_loop.mark_loaded()
        tokenizer = Tokenizer.from_folder(settings.folder, settings.shape.vocabulary)
        if settings.folder is not None and not tokenizer.named:
            log.warning("the folder's tokenizer is not one word a token; each word of a text counts as a token")
        endpoints = Endpoints(settings, engine_loop, metrics, truth, tokenizer, faults)
        log.info("GPU KV cache size: %s tokens", f"{physics.blocks * physics.engine.block_size:,}")
        log.info("Started server process [%d]", os.getpid())
        log.info("Waiting for application startup.")
        runner = web.AppRunner(
            endpoints.application(),
            access_log=None,
            keepalive_timeout=KEEP_ALIVE_S,
            handler_cancellation=True,
            shutdown_timeout=0.1,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.host, settings.port, backlog=2048).start()
        except OSError as error:
            log.error("%s", error)
            return 1
        log.info("Application startup complete.")
        log.info("Simulated server running on http://%s:%d", settings.host, settings.port)
        faults.schedule(loop, engine_loop.hang)
        _avoid_pauses()
        stats = asyncio.create_task(log_stats(log, metrics, engine))
        await stop.wait()
        log.info("Shutting down")
        stats.cancel()
        endpoints.cut()
    finally:
        if runner is not None:
            await runner.cleanup()
        await engine_loop.stop()
        slips = {"slips": engine_loop.slips, "slipped_s": engine_loop.slipped_ns / 1e9}
        if engine_loop.slips:
            log.warning("this machine was too slow for the simulated one: it was put off by %(slipped_s).3f s", slips)
        truth.close({"orderly": True, **slips})
        log.info("Application shutdown complete.")
    return code


def main() -> None:
    """The command line's entry; a wrong setting exits with 2, a port in use with 1."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(levelname)s %(asctime)s [bench] %(message)s",
        datefmt="%m-%d %H:%M:%S",
    )
    try:
        settings = parse_command_line(sys.argv[1:], os.getpid())
        physics = StepPhysics(settings.node.device, settings.shape, settings.node.engine, settings.node.tensor_parallel)
    except InputError as error:
        log.error("%s", error)
        sys.exit(2)
    log.info("vLLM's manners, version %s; all that is measured here is simulated", VERSION)
    log.info(
        "model %s (%s) on %d x %s",
        settings.model,
        settings.shape.name,
        settings.node.tensor_parallel,
        physics.device.label,
    )
    if settings.ignored:
        log.info("flags that the simulation does not know: %s", " ".join(settings.ignored))
    sys.exit(asyncio.run(serve(settings, physics)))


def _truth(settings: ServerSettings, engine: BenchEngine, started_ns: int) -> TruthSink:
    if settings.truth is None:
        return TruthSink()
    from inference_energy.bench.live.truth_writer import TruthWriter

    about: dict[str, Any] = {
        "simulated": True,
        "pid": os.getpid(),
        "started_ns": started_ns,
        "model": settings.model,
        "node": settings.node.model_dump(),
        "shape": settings.shape.model_dump(),
        "orderly": False,
    }
    return TruthWriter(settings.truth, engine, about)


async def _stopped_within(stop: asyncio.Event, duration_s: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), duration_s)
    return stop.is_set()


def _avoid_pauses() -> None:
    """Keep the interpreter from pausing: never collect what exists now, and let threads give way soon."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


if __name__ == "__main__":
    main()
