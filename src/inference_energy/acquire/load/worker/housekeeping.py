"""What a load process does beside sending: flushing its logs and collecting garbage, where that is in nobody's way."""

import asyncio
import gc
import resource
import time
from contextlib import suppress

from inference_energy.acquire.load.log.recorder import Recorder
from inference_energy.acquire.load.pacer.pacer import Pacer
from inference_energy.acquire.load.worker.priority import prefer

FLUSH_PERIOD_S = 0.4
"""With the wait for a quiet moment, a killed process loses what ended in its last half second."""

QUIET_NS = 2_000_000
TRIES, TRY_AGAIN_S = 15, 0.005
SLOW_COLLECTION_EVERY = 25


def stay_calm() -> None:
    """Keep Python's collector and other programs out of the way; called once everything is loaded."""
    gc.collect()
    gc.freeze()
    gc.disable()
    prefer()


def allow_many_connections() -> None:
    """Raise the limit of open files as far as the system lets us: often it is 1024, and each request holds one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def keep_house(recorder: Recorder, pacer: Pacer) -> None:
    """Flush and collect until cancelled, between two requests where there is such a moment.

    A request that ends well leaves no cycles; those that errors leave are mostly young.
    """
    rounds = 0
    while True:
        await asyncio.sleep(FLUSH_PERIOD_S)
        await _quiet(pacer)
        recorder.flush()
        rounds += 1
        gc.collect(0 if rounds % SLOW_COLLECTION_EVERY else 1)


async def _quiet(pacer: Pacer) -> None:
    """Wait until nothing is due for some time, but not for long."""
    for _ in range(TRIES):
        if pacer.next_ns - time.monotonic_ns() > QUIET_NS:
            return
        await asyncio.sleep(TRY_AGAIN_S)
