"""One life of the real server: it starts, it serves what the client counts, it stops without a trace."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from tests.vllm.real_server import ROOT, Processes, SharedMemory, wait_for

from inference_energy.acquire.load.client import LoadClient
from inference_energy.acquire.load.phase import run_phase
from inference_energy.acquire.load.request import PlannedRequest, RequestRecord
from inference_energy.acquire.server.launch import RunningServer, launch
from inference_energy.acquire.server.listening import port_is_free
from inference_energy.acquire.server.locks import acquire_locks
from inference_energy.acquire.server.metrics import MetricsPoller
from inference_energy.acquire.server.spec import LaunchSpec
from inference_energy.acquire.vllm.describe import describe
from inference_energy.analysis.reconcile import CACHED, GENERATED, PROMPT, RUNNING, STEPS, counter_rise
from inference_energy.contracts import server_metrics

pytestmark = pytest.mark.vllm

QUESTION = "The capital of France is"
QUESTION_IDS = [504, 3575, 282, 4649, 314]  # the same in SmolLM2's vocabulary
LONG = list(range(1000, 1300))  # more than two blocks of vLLM's prefix cache on the CPU (128 tokens)


class Life(NamedTuple):
    """A ready server, its processes, and what shared memory there was before."""

    server: RunningServer
    processes: Processes
    memory: SharedMemory


class Traffic(NamedTuple):
    """What the client recorded, and the server's metrics from before the first request until after the last."""

    records: dict[str, list[RequestRecord]]
    metrics: pd.DataFrame

    def all(self) -> list[RequestRecord]:
        return [record for records in self.records.values() for record in records]

    def rise(self, counter: str) -> float:
        times_ns = self.metrics["timestamp_ns"]
        found = counter_rise(self.metrics, counter, times_ns.min(), times_ns.max())
        assert found is not None, f"the server has no {counter}"
        return found[0]


@pytest.fixture(scope="module")
def life(
    tmp_path_factory: pytest.TempPathFactory, make_spec: Callable[..., LaunchSpec], real_model: dict[str, Any]
) -> Iterator[Life]:
    memory = SharedMemory()
    server = asyncio.run(launch(make_spec(tmp_path_factory.mktemp("server"), real_model)))
    processes = Processes(server.guardian.pid)
    yield Life(server, processes, memory)
    try:
        asyncio.run(server.stop())
    finally:
        processes.clean_up()


@pytest.fixture(scope="module")
def traffic(life: Life) -> Traffic:
    return asyncio.run(send(life.server))


async def send(server: RunningServer) -> Traffic:
    """All kinds of requests: at set times, by users who repeat them, and one after another."""
    ids = itertools.count(100)
    poller = MetricsPoller(server.base_url, 0.2)
    poller.start()
    await asyncio.sleep(1.0)
    sent: set[int] = set()

    def client(prefix_reuse: bool) -> LoadClient:
        name = server.spec.served_model_name
        return LoadClient(server.base_url, name, 120.0, ignore_eos=True, prefix_reuse=prefix_reuse, sent_before=sent)

    async with client(False) as anew, client(True) as reusing:
        timed = [PlannedRequest(i, i, (QUESTION, QUESTION_IDS)[i % 2], 12, i * 100_000_000) for i in range(4)]
        await run_phase(anew, "timed", timed, 1.0, 120.0)
        pool = [PlannedRequest(10 + i, i, [2000 + i] * 20, 8) for i in range(2)]
        await run_phase(anew, "users", pool, 3.0, 120.0, concurrency=2, new_id=lambda: next(ids))
        for sender, cell, max_tokens in (
            (reusing, "long", 4),
            (reusing, "again", 4),
            (anew, "salted", 4),
            (reusing, "one", 1),
        ):
            await sender.send(PlannedRequest(next(ids), 0, LONG, max_tokens), cell, time.monotonic_ns())
        records = [*anew.records, *reusing.records]
    await asyncio.sleep(1.0)  # the counters take in the last tokens after they were sent
    metrics = pd.DataFrame(await poller.stop(), columns=server_metrics.SCHEMA.names)
    cells = {record.cell for record in records}
    return Traffic({cell: [record for record in records if record.cell == cell] for cell in cells}, metrics)


def test_license_of_the_model_is_stated(real_model: dict[str, Any]) -> None:
    assert real_model["license"] == "apache-2.0"
    assert "general.license of the GGUF file" in real_model["license_source"]
    assert (real_model["weights"], real_model["vocabulary"]) == ("real", 49152)
    assert real_model["parameters"] == pytest.approx(135e6, rel=0.01)
    assert real_model["missing"].keys() == {"revision"}


def test_server_is_the_vllm_that_the_environment_states(life: Life, vllm_python: Path) -> None:
    facts = describe([str(vllm_python)])
    assert life.server.version == facts["vllm_version"]
    assert facts["torch_version"].startswith((ROOT / "envs/cpu/torch.lock").read_text().split("==")[1].strip())
    assert life.processes.are_a_whole_vllm()
    assert life.server.ready_after_s > 0


def test_usage_equals_the_servers_counters(traffic: Traffic) -> None:
    records = traffic.all()
    assert [record.error for record in records if record.status != "ok"] == []
    assert len(traffic.records["timed"]) == 4
    assert len(traffic.records["users"]) >= 2
    assert sum(record.completion_tokens for record in records) == traffic.rise(GENERATED)
    assert sum(record.prompt_tokens for record in records) == traffic.rise(PROMPT)
    assert sum(record.cached_tokens for record in records) == traffic.rise(CACHED)


def test_every_request_gets_the_tokens_it_asked_for(traffic: Traffic) -> None:
    expected = {"timed": (5, 12), "users": (20, 8), "long": (300, 4), "again": (300, 4), "salted": (300, 4)}
    for cell, counts in expected.items():
        assert {(item.prompt_tokens, item.completion_tokens) for item in traffic.records[cell]} == {counts}, cell
    for record in traffic.all():
        assert record.sent_ns < record.first_token_ns <= record.last_token_ns <= record.end_ns
        assert record.finish_reason == "length"


def test_one_token_is_prefill_alone(traffic: Traffic) -> None:
    (record,) = traffic.records["one"]
    assert (record.completion_tokens, record.finish_reason) == (1, "length")
    assert record.first_token_ns == record.last_token_ns


def test_a_repeated_prompt_is_cached_unless_it_is_salted(traffic: Traffic) -> None:
    cached = {cell: traffic.records[cell][0].cached_tokens for cell in ("long", "again", "salted", "one")}
    assert cached == {"long": 0, "again": 256, "salted": 0, "one": 256}


def test_the_families_that_are_read_are_there(traffic: Traffic) -> None:
    sources = (ROOT / "src" / "inference_energy").rglob("*.py")
    read = {name for path in sources for name in re.findall(r'"(vllm:\w+)"', path.read_text())}
    assert {GENERATED, PROMPT, CACHED, STEPS, RUNNING} <= read
    assert read - set(traffic.metrics["name"]) == set()
    assert 0 < traffic.rise(STEPS) <= traffic.rise(GENERATED)
    running = traffic.metrics[traffic.metrics["name"] == RUNNING]["value"]
    assert running.max() >= 1
    assert running.iloc[-1] == 0


def test_the_answer_is_sensible(life: Life) -> None:
    body = {"model": life.server.spec.served_model_name, "prompt": QUESTION, "max_tokens": 8, "temperature": 0}
    request = urllib.request.Request(
        f"{life.server.base_url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        assert "Paris" in json.load(response)["choices"][0]["text"]


def test_it_stops_in_order(life: Life) -> None:
    """The last test of this file: it ends the server of the others."""
    assert life.memory.made()
    final = asyncio.run(life.server.stop())
    assert (final["state"], final["reason"]) == ("stopped", "its owner asked for it")
    assert final["return_code"] == 0
    assert life.server.server_pid not in final["killed_pids"]
    wait_for(lambda: not life.processes.running(), "all processes to be gone")
    assert life.memory.left() == set()
    assert port_is_free(life.server.spec.host, life.server.spec.port)
    acquire_locks([]).close()
