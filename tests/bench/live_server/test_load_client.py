"""The toolkit's own launcher, client and metrics poller against the live server."""

import asyncio
import sys
from pathlib import Path

import pandas as pd
import pytest

from inference_energy.acquire.load.standalone import CELL
from inference_energy.acquire.server.launch import launch_server
from inference_energy.acquire.server.locks import DIRECTORY_VARIABLE
from inference_energy.acquire.server.metrics import MetricsPoller
from inference_energy.acquire.server.settings import LaunchSpec
from inference_energy.bench.config import Node
from inference_energy.bench.live.node import VARIABLE, make_node
from inference_energy.bench.live.truth_files import REQUESTS, read_truth
from tests.bench.live_server.servers import MODULE
from tests.conftest import unused_port
from tests.load.plans import row, run_cells, write_plan

pytestmark = pytest.mark.slow

REQUESTS_SENT = 40


async def measure(spec: LaunchSpec, folder: Path) -> tuple[pd.DataFrame, dict[str, float | None], int]:
    """Launch the server, send requests 10 ms apart from two processes, each prompt twice, and stop it."""
    rows = [
        row(number, arrival_ns=number * 10_000_000, prompt_id=number % 20, max_tokens=10 + number, salt=number >= 20)
        for number in range(REQUESTS_SENT)
    ]
    write_plan(folder, rows, [{"token_ids": [number, *range(100)]} for number in range(20)])
    cells = {CELL: (1.0, {"ignore_eos": True})}
    async with await launch_server(spec) as server:
        poller = MetricsPoller(server.base_url, 60.0)  # too seldom to see the end by itself
        poller.start()
        await asyncio.sleep(0.2)
        sent = await run_cells(server.base_url, "m", folder, cells, workers=2, drain_s=30.0)
        await poller.scrape_now()
        counted = {kind: poller.newest(kind) for kind in ("generated", "prompt")}
        await poller.stop()
        return sent, counted, server.server_pid


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
    sent, counted, pid = asyncio.run(measure(spec, tmp_path / "load"))
    assert (sent["status"] == "ok").all()
    assert len(sent) == REQUESTS_SENT
    assert set(sent["worker"]) == {0, 1}
    sent = sent.sort_values("completion_tokens").reset_index(drop=True)  # each asked for another number of tokens
    truth = read_truth(tmp_path / "node" / "truth" / str(pid), REQUESTS).to_pandas()
    truth = truth.sort_values("completion_tokens").reset_index(drop=True)
    for name in ("completion_tokens", "prompt_tokens", "cached_tokens"):
        assert sent[name].tolist() == truth[name].tolist(), name
    assert (sent["cached_tokens"] == 0).all()  # repeated prompts carry a salt of their own
    assert (sent["sent_ns"] <= truth["arrival_ns"]).all()
    assert (truth["first_token_ns"] <= sent["first_token_ns"]).all()
    assert (truth["last_token_ns"] <= sent["last_token_ns"]).all()
    assert counted == {"generated": sent["completion_tokens"].sum(), "prompt": sent["prompt_tokens"].sum()}
