"""Each fault of the bench's server ends as counted requests that say why, and no token of those is unaccounted for."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from tests.bench.live_server.conftest import SMALL_8B
from tests.bench.live_server.servers import LiveServer
from tests.load.plans import load_spec, logged, row, write_plan

from inference_energy.acquire.load.standalone import CELL
from inference_energy.acquire.load.worker_pool import WorkerPool
from inference_energy.acquire.model_files import write_dummy
from inference_energy.acquire.server.pages import Access
from inference_energy.analysis.server_metrics import ServerMetrics
from inference_energy.analysis.token_reconciliation import CellSpan, compare_cell
from inference_energy.api.load_test.prepare import read_counters, scrape
from inference_energy.bench.config import ServerFaults
from inference_energy.contracts.figure import json_values
from inference_energy.contracts.io import read_table
from inference_energy.contracts.schedule import SCHEDULE

pytestmark = pytest.mark.slow

REQUESTS, GAP_S, TOKENS, PROMPT = 24, 0.05, 8, 20
LONG_S = 10.0
"""How long load is sent to a server that is to end in the middle of it, seven seconds after its start."""
TIMEOUT_S = 3.0
CUT = "the server closed the connection before the answer was complete"
NONE = "the server closed the connection without an answer"
REFUSED = "no connection to 127.0.0.1"


class Expected(NamedTuple):
    """What a fault does: `faults` of the server, how many of the requests fail, and the beginnings of their errors.

    `failed` None: some do, and some do not. Where the server `survives`, its counters are compared; where it ends after
    a time, load is sent for `LONG_S`.
    """

    faults: dict[str, Any]
    failed: int | None
    errors: set[str]
    survives: bool = True

    @property
    def count(self) -> int:
        """Requests to send."""
        return round(LONG_S / GAP_S) if any(name.endswith("_after_s") for name in self.faults) else REQUESTS


TABLE = {
    "none": Expected({}, 0, set()),
    "start_delay_s": Expected({"start_delay_s": 1.0}, 0, set()),
    "crash_after_s": Expected({"crash_after_s": 7.0}, None, {CUT, NONE, REFUSED}, survives=False),
    "crash_at_request": Expected({"crash_at_request": 10}, None, {CUT, NONE, REFUSED}, survives=False),
    "hang_after_s": Expected({"hang_after_s": 7.0}, None, {f"no end within {TIMEOUT_S:g} s"}, survives=False),
    "error_500_every": Expected({"error_500_every": 3}, REQUESTS // 3, {"status 500"}),
    "error_event_every": Expected({"error_event_every": 4}, REQUESTS // 4, {"A simulated failure"}),
    "disconnect_every": Expected({"disconnect_every": 6}, REQUESTS // 6, {CUT}),
    "stall_every": Expected({"stall_every": 5, "stall_s": 0.5}, 0, set()),
    "stall_every, beyond the timeout": Expected(
        {"stall_every": 5, "stall_s": 60.0}, REQUESTS // 5, {f"no end within {TIMEOUT_S:g} s"}
    ),
}


def test_the_table_has_every_fault() -> None:
    told = {name for expected in TABLE.values() for name in expected.faults}
    assert told == set(ServerFaults.model_fields)


async def load(server: LiveServer, folder: Path, duration_s: float) -> pd.DataFrame:
    """Send the requests; counters before and after lie beside."""
    spec = load_spec(
        server.url,
        "m",
        folder,
        {CELL: (duration_s, {"ignore_eos": True})},
        workers=2,
        request_timeout_s=TIMEOUT_S,
        drain_s=30.0,
    )
    async with WorkerPool(spec) as team:
        await scrape([server.url], folder / "before", Access())
        await team.run_cell(CELL)
        await scrape([server.url], folder / "after", Access())
        counts = team.counts
        await team.finish()
    sent = logged(folder)
    by_status = Counter(sent["status"])
    assert (counts.ok, counts.failed, counts.aborted) == (by_status["ok"], by_status["failed"], by_status["aborted"])
    return sent


def start(tmp_path: Path, node: dict[str, Any], *flags: str) -> LiveServer:
    model = str(write_dummy(SMALL_8B, tmp_path / "model"))
    server = LiveServer(tmp_path, node, model, ["--enable-prompt-tokens-details", *flags])
    server.wait_until_ready()
    return server


def compared(folder: Path, sent: pd.DataFrame) -> dict[str, Any]:
    """Token totals against the counters."""
    metrics, why = read_counters(folder / "before", folder / "after", (1, 9))
    assert metrics is not None, why
    schedule = read_table(folder / "schedule.parquet", SCHEDULE)
    return json_values(compare_cell(sent, schedule, ServerMetrics(metrics), CellSpan(2, 8, None), 0.0)[0])


@pytest.mark.parametrize("name", TABLE)
def test_a_fault_is_counted_and_explained(name: str, tmp_path: Path) -> None:
    expected = TABLE[name]
    count = expected.count
    rows = [
        row(number, arrival_ns=round(number * GAP_S * 1e9), prompt_id=number, max_tokens=TOKENS, prompt_tokens=PROMPT)
        for number in range(count)
    ]
    folder = tmp_path / "load"
    write_plan(folder, rows, [{"token_ids": [number, *range(PROMPT - 1)]} for number in range(count)])
    server = start(tmp_path, {"faults": {"server": expected.faults}})
    try:
        sent = asyncio.run(load(server, folder, count * GAP_S))
    finally:
        server.kill()
    assert sorted(sent["request_id"]) == list(range(count)), "each is in the log once"
    failed, ok = sent[sent["status"] == "failed"], sent[sent["status"] == "ok"]
    assert len(failed) + len(ok) == count
    assert (ok["completion_tokens"] == TOKENS).all()
    assert (ok["finish_reason"] == "length").all()
    assert failed["sent_ns"].notna().all()
    assert failed["end_ns"].notna().all()
    unexplained = {error for error in failed["error"] if not any(error.startswith(one) for one in expected.errors)}
    assert unexplained == set()
    if expected.failed is None:
        assert 0 < len(failed) < count
    else:
        assert len(failed) == expected.failed
    if not expected.survives:
        return
    found = compared(folder, sent)
    for kind in ("generated", "prompt"):
        told = found["tokens"][kind]
        assert told["unexplained"] == 0, told
        assert bool(told["difference"]) <= bool(len(failed)), told
    assert found["requests"] == {"sent": count, "not_whole": len(failed), "of_others": 0}


def test_preempted_requests_and_cached_prompts_are_counted_once(tmp_path: Path) -> None:
    """With few blocks the server computes prompts again: what the client got still is what the server counts."""
    rows = [
        row(number, arrival_ns=0, prompt_id=number % 4, max_tokens=60, prompt_tokens=100, salt=False)
        for number in range(12)
    ]
    folder = tmp_path / "load"
    write_plan(folder, rows, [{"token_ids": [number, *range(99)]} for number in range(4)])
    server = start(tmp_path, {"engine": {"num_gpu_blocks": 40}}, "--max-model-len", "256")
    try:
        sent = asyncio.run(load(server, folder, 1.0))
    finally:
        server.kill()
    assert (sent["status"] == "ok").all()
    found = compared(folder, sent)
    assert found["preemptions"] > 0
    assert found["tokens"]["cached"]["server"] > 0
    for kind in ("generated", "prompt", "cached"):
        assert found["tokens"][kind]["difference"] == 0, kind
    assert found["tokens"]["generated"]["client"] == 12 * 60
