"""The toolkit's own launcher, client and metrics poller against the live server."""

import asyncio
import sys
import time
from pathlib import Path

import pytest

from inference_energy.acquire.load.client import LoadClient
from inference_energy.acquire.load.request import PlannedRequest, RequestRecord
from inference_energy.acquire.server.launch import launch
from inference_energy.acquire.server.locks import DIRECTORY_VARIABLE
from inference_energy.acquire.server.metrics import MetricsPoller, Row
from inference_energy.acquire.server.spec import LaunchSpec
from inference_energy.bench.live.node import VARIABLE, make_node
from inference_energy.bench.live.truth_files import REQUESTS, read
from inference_energy.bench.parts.node import Node
from tests.bench.live_server.servers import MODULE
from tests.conftest import unused_port

REQUESTS_SENT = 40


async def measure(spec: LaunchSpec) -> tuple[list[RequestRecord], list[Row], int]:
    """Launch the server, send requests 10 ms apart, each prompt twice, and stop it."""
    async with await launch(spec) as server:
        poller = MetricsPoller(server.base_url, 0.2)
        poller.start()
        async with LoadClient(server.base_url, "m", 30.0, ignore_eos=True) as client:
            running = []
            for number in range(REQUESTS_SENT):
                prompt = [number % 20, *range(100)]
                request = PlannedRequest(number, number % 20, prompt, 10 + number)
                running.append(asyncio.create_task(client.send(request, "cell", time.monotonic_ns())))
                await asyncio.sleep(0.01)
            records = [await task for task in running]
        return records, await poller.stop(), server.server_pid


@pytest.fixture
def spec(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> LaunchSpec:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    return LaunchSpec(
        model=str(model_folder),
        served_model_name="m",
        port=unused_port(),
        log_path=tmp_path / "server.log",
        status_path=tmp_path / "status.json",
        interpreter=Path(sys.executable),
        module=MODULE,
        arguments={"max-num-seqs": 16, "enable-prompt-tokens-details": True, "load-format": "dummy"},
        environment={VARIABLE: str(make_node(tmp_path / "node", Node()).folder)},
        ready_timeout_s=60,
    )


def test_the_pipelines_client_sees_what_is_true(spec: LaunchSpec, tmp_path: Path) -> None:
    records, rows, pid = asyncio.run(measure(spec))
    assert [record.error for record in records] == [None] * REQUESTS_SENT
    truth = read(tmp_path / "node" / "truth" / str(pid), REQUESTS).to_pandas()
    truth = truth.sort_values("completion_tokens")  # each request asked for another number of tokens
    assert truth["completion_tokens"].tolist() == [record.completion_tokens for record in records]
    assert truth["prompt_tokens"].tolist() == [record.prompt_tokens for record in records]
    assert truth["cached_tokens"].tolist() == [record.cached_tokens for record in records]
    assert {record.cached_tokens for record in records} == {0}  # repeated prompts carry a salt of their own
    for record, true in zip(records, truth.itertuples(), strict=True):
        assert record.sent_ns and record.first_token_ns and record.last_token_ns
        assert record.sent_ns <= true.arrival_ns < true.first_token_ns <= record.first_token_ns
        assert true.last_token_ns <= record.last_token_ns
    last = {name: value for _, name, _, value in rows}
    assert last["vllm:generation_tokens_total"] == truth["completion_tokens"].sum()
    assert last["vllm:prompt_tokens_total"] == truth["prompt_tokens"].sum()
