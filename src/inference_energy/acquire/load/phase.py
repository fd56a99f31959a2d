"""One phase of load: requests sent at their times or by a fixed number of users, then drained."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from inference_energy.acquire.load.client import LoadClient
from inference_energy.acquire.load.request import PlannedRequest


@dataclass(frozen=True)
class PhaseTimes:
    """When a phase sent requests, and when the last one in flight had ended or was cut off; monotonic ns."""

    start_ns: int
    end_ns: int
    drained_ns: int


async def run_phase(
    client: LoadClient,
    cell: str,
    requests: Sequence[PlannedRequest],
    duration_s: float,
    drain_s: float,
    *,
    concurrency: int | None = None,
    new_id: Callable[[], int] | None = None,
) -> PhaseTimes:
    """Send a phase's requests for its duration, then wait for those in flight.

    Open loop (`concurrency` None): each request is sent at its arrival, whatever the server does. Closed loop: that
    many users each send the next request when their last has ended; when the requests are used up they are sent
    again, under new ids.

    Args:
        client: an open client.
        cell: name of the phase.
        requests: in the order of their arrival.
        duration_s: how long requests are sent.
        drain_s: after that, how long to wait for requests in flight; what is left is cut off and stays recorded.
        concurrency: number of users of a closed loop.
        new_id: gives ids to repeated requests; required with `concurrency`.
    """
    start_ns = time.monotonic_ns()
    end_ns = start_ns + round(duration_s * 1e9)
    if concurrency is None:
        tasks = await _send_on_time(client, cell, requests, start_ns, end_ns)
    else:
        if new_id is None:
            raise ValueError("a closed loop needs new_id")
        queue = _repeated(requests, new_id)
        tasks = {asyncio.create_task(_user(client, cell, queue, end_ns)) for _ in range(concurrency)}
        try:
            await _sleep_until(end_ns)
        except BaseException:
            await _drain(tasks, 0)
            raise
    await _drain(tasks, drain_s)
    return PhaseTimes(start_ns, end_ns, time.monotonic_ns())


async def _send_on_time(
    client: LoadClient, cell: str, requests: Sequence[PlannedRequest], start_ns: int, end_ns: int
) -> set[asyncio.Task[Any]]:
    tasks: set[asyncio.Task[Any]] = set()
    try:
        for request in requests:
            due_ns = start_ns + (request.arrival_ns or 0)
            await _sleep_until(due_ns)
            tasks.add(asyncio.create_task(client.send(request, cell, due_ns)))
        await _sleep_until(end_ns)
    except BaseException:
        await _drain(tasks, 0)
        raise
    return tasks


async def _user(client: LoadClient, cell: str, queue: Iterator[PlannedRequest], end_ns: int) -> None:
    """Send one request after another until the phase ends; after a failure wait a little, lest the loop spin."""
    while (now_ns := time.monotonic_ns()) < end_ns:
        record = await client.send(next(queue), cell, now_ns)
        if record.status != "ok":
            await asyncio.sleep(0.2)


def _repeated(requests: Sequence[PlannedRequest], new_id: Callable[[], int]) -> Iterator[PlannedRequest]:
    yield from requests
    yield from (replace(request, request_id=new_id()) for request in itertools.cycle(requests))


async def _drain(tasks: set[asyncio.Task[Any]], drain_s: float) -> None:
    if not tasks:
        return
    try:
        if drain_s > 0:
            await asyncio.wait(tasks, timeout=drain_s)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _sleep_until(due_ns: int) -> None:
    delay_s = (due_ns - time.monotonic_ns()) / 1e9
    if delay_s > 0:
        await asyncio.sleep(delay_s)
