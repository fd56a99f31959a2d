"""The real API server is killed under load. Its engine, which alone would run on, is ended with it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.load.plans import closed_rows, load_spec, logged, write_plan
from tests.vllm.real_server import LIMIT_S, Processes, SharedMemory, wait_for

from inference_energy.acquire.load.standalone import CELL
from inference_energy.acquire.load.worker_pool import WorkerPool
from inference_energy.acquire.server.launch import RunningServer, launch_server
from inference_energy.acquire.server.locks import acquire_locks
from inference_energy.acquire.server.preflight import port_is_free
from inference_energy.acquire.server.settings import LaunchSpec

pytestmark = pytest.mark.vllm


async def kill_under_load(server: RunningServer, folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """SIGKILL the API server once tokens flow: the requests that were in flight, and the guardian's final status."""
    prompts = [{"token_ids": [1000 + number] * 20} for number in range(8)]
    write_plan(folder, [{**row, "prompt_id": row["request_id"]} for row in closed_rows(8, 4, max_tokens=200)], prompts)
    cells = {CELL: (LIMIT_S, {"ignore_eos": True})}
    name = server.spec.served_model_name
    async with WorkerPool(load_spec(server.base_url, name, folder, cells, drain_s=1.0)) as team:
        load = asyncio.create_task(team.run_cell(CELL))
        while sum(team.counts.ttft.counts.values()) < 4:
            assert server.alive()
            await asyncio.sleep(0.05)
        killed_ns = time.monotonic_ns()
        os.kill(server.server_pid, signal.SIGKILL)
        final = await asyncio.wait_for(server.ended(), LIMIT_S)
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
    sent = logged(folder)
    return sent[(sent["sent_ns"] < killed_ns) & (sent["end_ns"] > killed_ns)], final


@pytest.fixture
def server(
    tmp_path: Path, make_spec: Callable[..., LaunchSpec], real_model: dict[str, Any]
) -> Iterator[tuple[RunningServer, Processes, SharedMemory]]:
    memory = SharedMemory()
    server = asyncio.run(launch_server(make_spec(tmp_path, real_model)))
    processes = Processes(server.guardian.pid)
    yield server, processes, memory
    try:
        asyncio.run(server.stop())
    finally:
        processes.clean_up()


def test_api_server_is_killed_under_load(server: tuple[RunningServer, Processes, SharedMemory], tmp_path: Path) -> None:
    running, processes, memory = server
    assert processes.are_a_whole_vllm()
    assert memory.made()
    in_flight, final = asyncio.run(kill_under_load(running, tmp_path / "load"))
    assert (final.state, final.reason) == ("stopped", "the server ended by itself")
    assert (final.return_code, final.leftover_pids) == (-signal.SIGKILL, [])
    assert len(in_flight) == 4
    assert set(in_flight["status"]) == {"failed"}
    assert in_flight["error"].notna().all()
    wait_for(lambda: not processes.running(), "all processes to be gone")
    assert memory.left() == set()
    assert port_is_free(running.spec.host, running.spec.port)
    acquire_locks([]).close()
