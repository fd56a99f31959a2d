"""A model without weights on the real vLLM: every token is a word, and an event of its own."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import unused_port
from tests.vllm.real_server import Processes, real_spec

from inference_energy.acquire.cache import VARIABLE
from inference_energy.acquire.load.client import LoadClient
from inference_energy.acquire.load.request import PlannedRequest, RequestRecord
from inference_energy.acquire.model.prepare import prepare
from inference_energy.acquire.server.launch import RunningServer, launch

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
        patch.setenv(VARIABLE, str(tmp_path_factory.mktemp("cache")))  # written anew, not what an older one left
        return prepare({"name": "tiny", "source": "dummy", "architecture": TINY_LLAMA}, [str(vllm_python)])


@pytest.fixture(scope="module")
def server(
    own_locks: None, tmp_path_factory: pytest.TempPathFactory, vllm_python: Path, model: dict[str, Any]
) -> Iterator[RunningServer]:
    server = asyncio.run(launch(real_spec(tmp_path_factory.mktemp("server"), vllm_python, model, unused_port())))
    processes = Processes(server.guardian.pid)
    yield server
    try:
        asyncio.run(server.stop())
    finally:
        processes.clean_up()


def test_it_is_described_as_a_dummy(model: dict[str, Any]) -> None:
    assert (model["weights"], model["vocabulary"], model["parameters"]) == ("dummy", 512, None)
    assert model["missing"]["parameters"] == "the weights are dummies"


def test_one_event_with_content_per_token(server: RunningServer) -> None:
    async def send() -> list[tuple[RequestRecord, int]]:
        sent = []
        async with LoadClient(server.base_url, "tiny", 60.0, ignore_eos=True) as client:
            for i in range(15):
                before = client.events
                request = PlannedRequest(i, i, [20 + i] * 10, 16)
                sent.append((await client.send(request, "one by one", time.monotonic_ns()), client.events - before))
        return sent

    sent = asyncio.run(send())
    assert [record.error for record, _ in sent if record.status != "ok"] == []
    assert {(record.prompt_tokens, record.completion_tokens) for record, _ in sent} == {(10, 16)}
    assert all(record.first_token_ns < record.last_token_ns for record, _ in sent)
    # A busy machine puts two tokens into one event now and then.
    assert statistics.median(events for _, events in sent) == 16
    assert max(events for _, events in sent) == 16


@pytest.mark.parametrize("token", [0, 1, 2, 255, 511])
def test_each_token_is_a_word(server: RunningServer, token: int) -> None:
    body = {"model": "tiny", "prompt": [7] * 10, "max_tokens": 3, "ignore_eos": True, "allowed_token_ids": [token]}
    request = urllib.request.Request(
        f"{server.base_url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        assert json.load(response)["choices"][0]["text"].split() == [f"t{token}"] * 3
