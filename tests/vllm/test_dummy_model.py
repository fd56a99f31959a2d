"""A model without weights on the real vLLM: every token is a word and, one request at a time, an event."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.vllm.real_server import Processes

from inference_energy.acquire.cache import VARIABLE
from inference_energy.acquire.load.client import LoadClient
from inference_energy.acquire.load.request import PlannedRequest, RequestRecord
from inference_energy.acquire.model.prepare import prepare
from inference_energy.acquire.server.launch import RunningServer, launch
from inference_energy.acquire.server.spec import LaunchSpec

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
    tmp_path_factory: pytest.TempPathFactory, make_spec: Callable[..., LaunchSpec], model: dict[str, Any]
) -> Iterator[RunningServer]:
    server = asyncio.run(launch(make_spec(tmp_path_factory.mktemp("server"), model)))
    processes = Processes(server.guardian.pid)
    yield server
    try:
        asyncio.run(server.stop())
    finally:
        processes.clean_up()


def test_it_is_described_as_a_dummy(model: dict[str, Any]) -> None:
    assert (model["weights"], model["vocabulary"], model["parameters"]) == ("dummy", 512, None)
    assert model["missing"]["parameters"] == "the weights are dummies"


def complete(server: RunningServer, **settings: object) -> list[str]:
    """The lines of the answer to a request for tokens whatever they are."""
    body = {"model": "tiny", "prompt": [7] * 10, "ignore_eos": True, "temperature": 0, **settings}
    request = urllib.request.Request(
        f"{server.base_url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read().decode().splitlines()


def test_one_event_with_content_per_token(server: RunningServer) -> None:
    async def send() -> list[tuple[RequestRecord, int]]:
        """Requests one by one, until one streams undisturbed: a slow start puts tokens that waited into one event."""
        sent: list[tuple[RequestRecord, int]] = []
        async with LoadClient(server.base_url, "tiny", 60.0, ignore_eos=True) as client:
            while len(sent) < 100 and (not sent or sent[-1][1] < 16):
                before, number = client.events, len(sent)
                request = PlannedRequest(number, number, [20 + number] * 10, 16)
                record = await client.send(request, "one by one", time.monotonic_ns())
                sent.append((record, client.events - before))
        return sent

    sent = asyncio.run(send())
    assert [record.error for record, _ in sent if record.status != "ok"] == []
    assert {(record.prompt_tokens, record.completion_tokens) for record, _ in sent} == {(10, 16)}
    assert max(events for _, events in sent) == sent[-1][1] == 16


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
