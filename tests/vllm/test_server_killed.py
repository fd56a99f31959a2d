"""The real API server is killed under load. Its engine, which alone would run on, is ended with it."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.vllm.real_server import LIMIT_S, Processes, SharedMemory, wait_for

from inference_energy.acquire.load.client import LoadClient
from inference_energy.acquire.load.phase import run_phase
from inference_energy.acquire.load.request import PlannedRequest, RequestRecord
from inference_energy.acquire.server.launch import RunningServer, launch
from inference_energy.acquire.server.listening import port_is_free
from inference_energy.acquire.server.locks import acquire_locks
from inference_energy.acquire.server.spec import LaunchSpec

pytestmark = pytest.mark.vllm


async def kill_under_load(server: RunningServer) -> tuple[list[RequestRecord], dict[str, Any]]:
    """SIGKILL the API server once tokens flow: the requests that were in flight, and the guardian's final status."""
    ids = itertools.count(100)
    requests = [PlannedRequest(i, i, [1000 + i] * 20, 200) for i in range(8)]
    async with LoadClient(server.base_url, server.spec.served_model_name, 120.0, ignore_eos=True) as client:
        phase = run_phase(client, "load", requests, LIMIT_S, 1.0, concurrency=4, new_id=lambda: next(ids))
        load = asyncio.create_task(phase)
        while client.events < 40:
            assert server.alive()
            await asyncio.sleep(0.05)
        in_flight = [record for record in client.records if record.end_ns is None]
        os.kill(server.server_pid, signal.SIGKILL)
        final = await asyncio.wait_for(server.ended(), LIMIT_S)
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
    return in_flight, final


@pytest.fixture
def server(
    tmp_path: Path, make_spec: Callable[..., LaunchSpec], real_model: dict[str, Any]
) -> Iterator[tuple[RunningServer, Processes, SharedMemory]]:
    memory = SharedMemory()
    server = asyncio.run(launch(make_spec(tmp_path, real_model)))
    processes = Processes(server.guardian.pid)
    yield server, processes, memory
    try:
        asyncio.run(server.stop())
    finally:
        processes.clean_up()


def test_api_server_is_killed_under_load(server: tuple[RunningServer, Processes, SharedMemory]) -> None:
    running, processes, memory = server
    assert processes.are_a_whole_vllm()
    assert memory.made()
    in_flight, final = asyncio.run(kill_under_load(running))
    assert (final["state"], final["reason"]) == ("stopped", "the server ended by itself")
    assert (final["return_code"], final["leftover_pids"]) == (-signal.SIGKILL, [])
    assert len(in_flight) == 4
    assert {record.status for record in in_flight} == {"failed"}
    assert all(record.error for record in in_flight)
    wait_for(lambda: not processes.running(), "all processes to be gone")
    assert memory.left() == set()
    assert port_is_free(running.spec.host, running.spec.port)
    acquire_locks([]).close()
