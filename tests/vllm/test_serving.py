"""One life of the real server: it starts, it serves what the client counts, it stops without a trace."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from tests.load.plans import closed_rows, open_rows, row, run_cells, write_plan
from tests.pipeline.conftest import Project
from tests.vllm.real_server import ROOT, Processes, SharedMemory, wait_for

from inference_energy.acquire.server.launch import RunningServer, launch_server
from inference_energy.acquire.server.locks import acquire_locks
from inference_energy.acquire.server.metrics import MetricsPoller, compact_metrics_log
from inference_energy.acquire.server.preflight import port_is_free
from inference_energy.acquire.server.settings import LaunchSpec
from inference_energy.acquire.vllm_environment import describe
from inference_energy.analysis.server_metrics import ServerMetrics
from inference_energy.contracts import server_metrics
from inference_energy.contracts.engine_metrics import VLLM
from inference_energy.contracts.io import read_table

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

    records: dict[str, list[Any]]
    metrics: pd.DataFrame

    def all(self) -> list[Any]:
        return [record for records in self.records.values() for record in records]

    def rise(self, counter: str) -> float:
        times_ns = self.metrics["timestamp_ns"]
        found = ServerMetrics(self.metrics).rise(counter, times_ns.min(), times_ns.max())
        assert found is not None, f"the server has no {counter}"
        return found[0]


@pytest.fixture(scope="module")
def life(
    tmp_path_factory: pytest.TempPathFactory, make_spec: Callable[..., LaunchSpec], real_model: dict[str, Any]
) -> Iterator[Life]:
    memory = SharedMemory()
    server = asyncio.run(launch_server(make_spec(tmp_path_factory.mktemp("server"), real_model)))
    processes = Processes(server.guardian.pid)
    yield Life(server, processes, memory)
    try:
        asyncio.run(server.stop())
    finally:
        processes.clean_up()


@pytest.fixture(scope="module")
def traffic(life: Life, tmp_path_factory: pytest.TempPathFactory) -> Traffic:
    return asyncio.run(send(life.server, tmp_path_factory.mktemp("load")))


async def send(server: RunningServer, folder: Path) -> Traffic:
    """All kinds of requests: at set times, by users who repeat them, and one after another."""
    prompts = [{"text": QUESTION}, {"token_ids": QUESTION_IDS}, {"token_ids": LONG}]
    prompts += [{"token_ids": [2000 + number] * 20} for number in range(2)]
    rows = [
        {**asked, "cell": "timed", "prompt_id": number % 2, "salt": number > 1}
        for number, asked in enumerate(open_rows(4, 0.1, max_tokens=12))
    ]
    rows += [
        {**asked, "cell": "users", "request_id": 10 + number, "prompt_id": 3 + number}
        for number, asked in enumerate(closed_rows(2, 2, max_tokens=8))
    ]
    one_by_one = {"long": (4, False), "again": (4, False), "salted": (4, True), "one": (1, False)}
    rows += [
        row(20 + number, cell=cell, arrival_ns=0, prompt_id=2, max_tokens=max_tokens, salt=salt)
        for number, (cell, (max_tokens, salt)) in enumerate(one_by_one.items())
    ]
    write_plan(folder, rows, prompts)
    exact = {"ignore_eos": True}
    cells = {"timed": (1.0, exact), "users": (3.0, exact), **dict.fromkeys(one_by_one, (0.2, exact))}
    poller = MetricsPoller(server.base_url, 0.2, folder / "metrics.arrows")
    poller.start()
    await asyncio.sleep(1.0)
    sent = await run_cells(server.base_url, server.spec.served_model_name, folder, cells, drain_s=120.0)
    await asyncio.sleep(1.0)  # the counters take in the last tokens after they were sent
    await poller.stop()
    compact_metrics_log(folder / "metrics.arrows", folder / "server_metrics.parquet")
    metrics = read_table(folder / "server_metrics.parquet", server_metrics.SCHEMA)
    return Traffic({str(cell): list(own.itertuples()) for cell, own in sent.groupby("cell")}, metrics)


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
    assert sum(record.completion_tokens for record in records) == traffic.rise("generated")
    assert sum(record.prompt_tokens for record in records) == traffic.rise("prompt")
    assert sum(record.cached_tokens for record in records) == traffic.rise("cached")


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
    assert VLLM.samples - set(traffic.metrics["name"]) == set()
    assert 0 < traffic.rise("steps") <= traffic.rise("generated")
    running = traffic.metrics[traffic.metrics["name"] == VLLM.full("running")]["value"]
    assert running.max() >= 1
    assert running.iloc[-1] == 0


def test_the_answer_is_sensible(life: Life) -> None:
    body = {"model": life.server.spec.served_model_name, "prompt": QUESTION, "max_tokens": 8, "temperature": 0}
    request = urllib.request.Request(
        f"{life.server.base_url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        assert "Paris" in json.load(response)["choices"][0]["text"]


def test_the_pipeline_attaches_to_it_and_runs_to_the_report(life: Life, make_project: Callable[[], Project]) -> None:
    words = {"source": "synthetic", "form": "words", "length": {"distribution": "fixed", "tokens": 12}}
    window = {"workload": "words", "arrival": {"process": "closed", "concurrency": 2}, "duration_s": 8}
    config = {
        "experiment": "attached",
        "run": ["theirs"],
        "sessions": {"theirs": {"server": "running", "warmup": {**window, "duration_s": 1}, "windows": ["two-users"]}},
        "windows": {"two-users": window},
        "workloads": {"words": {"prompts": words, "max_tokens": 8, "ignore_eos": True}},
        "servers": {"running": {"mode": "attach", "endpoint": life.server.base_url}},
        "idle": {"cold_s": 2, "loaded_s": 1, "post_s": 1, "settle_s": 0.2},
        "power": {"sources": ["modelled"]},
        "analysis": {"trim_start_s": 0.5},
    }
    project = Project(make_project().folder, config)
    project.snakemake()
    results = project.folder / "results/attached"
    assert {"summary.json", "report.html", "attached.zip"} <= {path.name for path in results.iterdir()}
    (cell,) = json.loads((results / "summary.json").read_text())["cells"]
    assert cell["figures"]["output_tokens"]["value"] > 0
    assert cell["figures"]["energy_active_j"]["value"] is None
    assert life.server.guardian.status().state == "running"


def test_it_stops_in_order(life: Life) -> None:
    """The last test of this file: it ends the server of the others."""
    assert life.memory.made()
    final = asyncio.run(life.server.stop())
    assert (final.state, final.reason) == ("stopped", "its owner asked for it")
    assert final.return_code == 0
    assert life.server.server_pid not in final.killed_pids
    wait_for(lambda: not life.processes.running(), "all processes to be gone")
    assert life.memory.left() == set()
    assert port_is_free(life.server.spec.host, life.server.spec.port)
    acquire_locks([]).close()
