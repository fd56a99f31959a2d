"""How late the pacer wakes, and how late the event loop's own sleep does, alone on a core.

python pacers.py SECONDS
"""

import asyncio
import gc
import json
import sys
import time

import uvloop

from inference_energy.acquire.load.pacer import Pacer
from load.compare import spread
from load.plans import poisson_ns

RATE_QPS = 200.0


async def by_pacer(arrivals_ns: list[int]) -> list[float]:
    """Lateness [ms] of the pacer's callbacks."""
    late: list[float] = []
    pacer, start_ns = Pacer(), time.monotonic_ns() + 50_000_000
    for arrival_ns in arrivals_ns:
        due_ns = start_ns + arrival_ns
        pacer.call_at(due_ns, lambda due_ns: late.append((time.monotonic_ns() - due_ns) / 1e6), due_ns)
    await pacer.sleep_until(start_ns + arrivals_ns[-1] + 1)
    pacer.close()
    return late


async def by_sleep(arrivals_ns: list[int]) -> list[float]:
    """Lateness [ms] of a loop that sleeps until the next is due."""
    late: list[float] = []
    start_ns = time.monotonic_ns() + 50_000_000
    for arrival_ns in arrivals_ns:
        due_ns = start_ns + arrival_ns
        await asyncio.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
        late.append((time.monotonic_ns() - due_ns) / 1e6)
    return late


def main() -> None:
    """Measure both."""
    arrivals_ns = poisson_ns(RATE_QPS, float(sys.argv[1]))
    gc.freeze()
    gc.disable()
    found = {
        "timerfd pacer": spread(uvloop.run(by_pacer(arrivals_ns))),
        "asyncio.sleep on uvloop": spread(uvloop.run(by_sleep(arrivals_ns))),
        "asyncio.sleep on asyncio": spread(asyncio.run(by_sleep(arrivals_ns))),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
