"""A model without weights on the real vLLM: every token is a word and, one request at a time, an event."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.load.plans import closed_rows, run_cells, write_plan
from tests.vllm.real_server import Processes

from inference_energy.acquire.model_files import prepare_model
from inference_energy.acquire.server.launch import RunningServer, launch_server
from inference_energy.acquire.server.settings import LaunchSpec
from inference_energy.acquire.vllm_environment import CACHE_VARIABLE

pytestmark = pytest.mark.vllm

TINY_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,  # the smallest that vLLM's attention on the CPU has
    "vocab_size": 512,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, vllm_python: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))  # written anew, not what an older one left
        return prepare_model({"name": "tiny", "source": "dummy", "architecture": TINY_LLAMA}, [str(vllm_python)])


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, make_spec: Callable[..., LaunchSpec], model: dict[str, Any]
) -> Iterator[RunningServer]:
    server = asyncio.run(launch_server(make_spec(tmp_path_factory.mktemp("server"), model)))
    processes = Processes(server.guardian.pid)
    yield server
    try:
        asyncio.run(server.stop())
    finally:
        processes.clean_up()


def test_it_is_described_as_a_dummy(model: dict[str, Any]) -> None:
    assert (model["weights"], model["vocabulary"], model["parameters"]) == ("dummy", 512, None)
    assert model["architecture"]["vocab_size"] == 512
    assert model["missing"]["parameters"] == "the weights are dummies"


def complete(server: RunningServer, **settings: object) -> list[str]:
    """The lines of the answer to a request for tokens whatever they are."""
    body = {"model": "tiny", "prompt": [7] * 10, "ignore_eos": True, "temperature": 0, **settings}
    request = urllib.request.Request(
        f"{server.base_url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read().decode().splitlines()


def test_one_event_with_content_per_token(server: RunningServer, tmp_path: Path) -> None:
    """One request at a time; a slow start can put tokens that waited into one event, so most may be undisturbed."""
    write_plan(tmp_path, closed_rows(40, 1, cell="one", max_tokens=16), [{"token_ids": [20] * 10}])
    workload = {"ignore_eos": True, "chunk_times": True}
    sent = asyncio.run(run_cells(server.base_url, "tiny", tmp_path, {"one": (10.0, workload)}))
    assert (sent["status"] == "ok").all()
    assert (sent["prompt_tokens"] == 10).all()
    assert (sent["completion_tokens"] == 16).all()
    events = pd.read_parquet(tmp_path / "chunks.parquet").groupby("request_id")["events"].sum()
    assert events.max() == 16


def test_events_hold_as_many_words_as_tokens(server: RunningServer) -> None:
    lines = complete(server, max_tokens=64, stream=True, return_token_ids=True)
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    choices = [event["choices"][0] for event in events]
    assert [choice["text"].split() for choice in choices] == [
        [f"t{token}" for token in choice["token_ids"]] for choice in choices
    ]
    assert sum(len(choice["token_ids"]) for choice in choices) == 64


@pytest.mark.parametrize("token", [0, 1, 2, 255, 511])
def test_each_token_is_a_word(server: RunningServer, token: int) -> None:
    (line,) = complete(server, max_tokens=3, allowed_token_ids=[token])
    assert json.loads(line)["choices"][0]["text"].split() == [f"t{token}"] * 3
