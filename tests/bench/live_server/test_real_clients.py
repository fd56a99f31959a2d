"""Clients that others wrote, unchanged, against the live server."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import openai
import pytest

from inference_energy.acquire.vllm_environment import CACHE_VARIABLE, ensure_environment
from tests.bench.live_server.servers import LiveServer
from tests.vllm.real_server import ROOT

pytestmark = pytest.mark.slow

VLLM_BENCH_SERVE = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
# What `vllm bench serve` runs. The command itself does not start in vLLM's CPU build: it asks for a package `vllm`.


@pytest.fixture
def client(server: LiveServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_openai_lists_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["m"]


def test_openai_completions(client: openai.OpenAI) -> None:
    extension = {"ignore_eos": True}
    whole = client.completions.create(model="m", prompt="t1 t2 t3", max_tokens=7, extra_body=extension)
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (3, 7)
    assert whole.choices[0].finish_reason == "length"
    stream = client.completions.create(
        model="m",
        prompt="t1 t2 t3",
        max_tokens=7,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=extension,
    )
    parts = list(stream)
    assert "".join(choice.text for part in parts for choice in part.choices) == whole.choices[0].text
    assert parts[-1].usage == whole.usage


def test_openai_chats(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "t1 t2"}]
    whole = client.chat.completions.create(model="m", messages=messages, max_completion_tokens=5)  # type: ignore[arg-type]
    content = whole.choices[0].message.content
    assert content is not None
    assert whole.usage is not None
    assert len(content.split()) == whole.usage.completion_tokens
    stream = client.chat.completions.create(model="m", messages=messages, max_completion_tokens=5, stream=True)  # type: ignore[call-overload]
    parts = list(stream)
    assert parts[0].choices[0].delta.role == "assistant"
    assert "".join(part.choices[0].delta.content or "" for part in parts) == content
    assert parts[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_openai_raises_its_own_errors(client: openai.OpenAI, start: Callable[..., LiveServer]) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.completions.create(model="other", prompt="t1")
    with pytest.raises(openai.BadRequestError, match="max_tokens must be at least 1"):
        client.completions.create(model="m", prompt="t1", max_tokens=0)
    broken = start(faults={"server": {"error_event_every": 2, "error_500_every": 3}})
    other = openai.OpenAI(base_url=f"{broken.url}/v1", api_key="none", max_retries=0)
    assert list(other.completions.create(model="m", prompt="t1", stream=True))
    with pytest.raises(openai.APIError, match="simulated failure"):
        list(other.completions.create(model="m", prompt="t1", stream=True))
    with pytest.raises(openai.InternalServerError, match="simulated failure"):
        other.completions.create(model="m", prompt="t1", stream=True)


@pytest.mark.vllm
def test_vllm_bench_serve(server: LiveServer, model_folder: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(ROOT / ".cache"))
        python = ensure_environment("cpu", ROOT / "envs" / "cpu")
    before = server.metrics()
    command = [str(python), "-c", VLLM_BENCH_SERVE, "--base-url", server.url]
    command += ["--model", "m", "--tokenizer", str(model_folder), "--dataset-name", "random", "--num-prompts", "20"]
    command += ["--random-input-len", "64", "--random-output-len", "16", "--request-rate", "20", "--ignore-eos"]
    command += ["--save-result", "--result-dir", str(tmp_path), "--result-filename", "result.json"]
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    done = subprocess.run(
        command, env={**os.environ, **quiet}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["completed"], result.get("failed", 0)) == (20, 0)
    assert result["total_output_tokens"] == 320
    after = server.metrics()
    sent_itself = after["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"] - 320
    assert sent_itself in range(65)  # its trial requests before the measurement
    assert result["mean_tpot_ms"] > 0
