"""Client and server agree token for token over a cell, or the difference is explained: against the live server."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference_energy.acquire.load.standalone import CELL
from inference_energy.acquire.load.worker_pool import WorkerPool
from inference_energy.acquire.server.metrics import MetricsPoller, compact_metrics_log
from inference_energy.analysis.server_metrics import ServerMetrics
from inference_energy.analysis.token_reconciliation import CellSpan, compare_cell
from inference_energy.contracts import schedule, server_metrics
from inference_energy.contracts.figure import Reason, json_values
from inference_energy.contracts.io import read_table
from tests.bench.live_server.servers import LiveServer
from tests.load.plans import load_spec, logged, open_rows, write_plan

pytestmark = pytest.mark.slow


async def send(server: LiveServer, folder: Path, duration_s: float, drain_s: float) -> tuple[Any, CellSpan]:
    spec = load_spec(server.url, "m", folder, {CELL: (duration_s, {"ignore_eos": True})}, drain_s=drain_s)
    poller = MetricsPoller(server.url, 0.1, folder / "metrics.arrows")
    async with WorkerPool(spec) as team:
        poller.start()
        assert await poller.scrape_idle()
        times = await team.run_cell(CELL)
        assert await poller.scrape_idle()
        await team.finish()
    await poller.stop()
    compact_metrics_log(folder / "metrics.arrows", folder / "server_metrics.parquet")
    return logged(folder), CellSpan(times.start_ns, max(times.drained_ns, 0), time.monotonic_ns())


def compared(
    server: LiveServer, folder: Path, rows: list[Any], prompts: list[Any], duration_s: float = 1.0, drain_s: float = 30
) -> tuple[Any, dict[str, Any], list[Reason]]:
    write_plan(folder, rows, prompts)
    sent, span = asyncio.run(send(server, folder, duration_s, drain_s))
    metrics = ServerMetrics(read_table(folder / "server_metrics.parquet", server_metrics.SCHEMA))
    table, reasons = compare_cell(sent, read_table(folder / "schedule.parquet", schedule.SCHEDULE), metrics, span, 0.0)
    return sent, json_values(table), reasons


def prompt(tokens: int) -> dict[str, list[int]]:
    return {"token_ids": list(range(tokens))}


def test_a_whole_cell_agrees_to_the_token(start: Callable[..., LiveServer], tmp_path: Path) -> None:
    server = start("--enable-prompt-tokens-details")
    rows = open_rows(30, 0.02, prompt_tokens=100, max_tokens=17)
    sent, table, reasons = compared(server, tmp_path / "load", rows, [prompt(100)])
    assert (sent["status"] == "ok").all()
    assert sent["cached_tokens"].sum() > 0
    assert reasons == []
    for kind in ("generated", "prompt", "cached"):
        assert table["tokens"][kind]["difference"] == 0
    assert table["tokens"]["generated"]["client"] == 30 * 17
    assert table["finished"] == {"length": {"client": 30, "server": 30}}
    assert table["requests"] == {"sent": 30, "not_whole": 0, "of_others": 0}


def test_tokens_of_requests_that_were_cut_off_are_explained(start: Callable[..., LiveServer], tmp_path: Path) -> None:
    server = start()
    rows = open_rows(8, 0.02, prompt_tokens=50, max_tokens=1500)
    sent, table, reasons = compared(server, tmp_path / "load", rows, [prompt(50)], duration_s=0.5, drain_s=0.2)
    assert (sent["status"] == "aborted").all()
    row = table["tokens"]["generated"]
    assert row["difference"] < 0
    assert (row["explained"], row["unexplained"]) == (-row["difference"], 0)
    assert table["finished"]["not ok"] == {"client": 8, "server": 8}
    # Though nothing is tolerated, nothing is held against the counts.
    assert {reason.code for reason in reasons} == {"tokens_differ"}
    assert "8 request(s) that were cut off" in reasons[0].detail


def test_preemptions_do_not_spoil_the_totals(start: Callable[..., LiveServer], tmp_path: Path) -> None:
    server = start("--num-gpu-blocks-override", "60", "--max-model-len", "900")
    rows = open_rows(8, 0.001, prompt_tokens=200, max_tokens=100)
    prompts = [{"token_ids": [(number * 37 + place) % 500 for place in range(200)]} for number in range(8)]
    for number, row in enumerate(rows):
        row["prompt_id"] = number
    _, table, reasons = compared(server, tmp_path / "load", rows, prompts)
    assert table["preemptions"] > 0
    assert reasons == []
    assert table["tokens"]["prompt"]["server"] == 1600


@pytest.mark.parametrize("others", [3])
def test_requests_of_others_are_counted(start: Callable[..., LiveServer], tmp_path: Path, others: int) -> None:
    server = start()
    folder = tmp_path / "load"
    write_plan(folder, open_rows(10, 0.02, prompt_tokens=20, max_tokens=10), [prompt(20)])

    async def both() -> tuple[Any, CellSpan]:
        ask = asyncio.to_thread(meddle)
        sent, _ = await asyncio.gather(send(server, folder, 1.5, 30.0), ask)
        return sent

    def meddle() -> None:
        time.sleep(1.0)
        deadline = time.monotonic() + 20
        while not server.metrics()["vllm:generation_tokens_total"] and time.monotonic() < deadline:
            time.sleep(0.02)
        for _ in range(others):
            server.json("/v1/completions", {"model": "m", "prompt": [1, 2], "max_tokens": 4, "ignore_eos": True})

    sent, span = asyncio.run(both())
    metrics = ServerMetrics(read_table(folder / "server_metrics.parquet", server_metrics.SCHEMA))
    totals, reasons = compare_cell(sent, None, metrics, span, 0.02)
    table = json_values(totals)
    assert table["requests"]["of_others"] == others
    assert table["tokens"]["generated"]["unexplained"] == others * 4
    assert reasons[0].code == "token_mismatch"
    assert "3 request(s) of others" in reasons[0].detail
