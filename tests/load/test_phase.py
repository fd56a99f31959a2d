"""Phases of load against a stub server: arrivals, users, drain, failures."""

import asyncio
import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest

from inference_energy.acquire.load.client import LoadClient
from inference_energy.acquire.load.phase import PhaseTimes, run_phase
from inference_energy.acquire.load.request import PlannedRequest, RequestRecord

Start = Callable[..., str]


def requests(count: int, gap_s: float | None = None, max_tokens: int = 5) -> list[PlannedRequest]:
    return [
        PlannedRequest(i, i, [1, 2, 3], max_tokens, None if gap_s is None else round(i * gap_s * 1e9))
        for i in range(count)
    ]


def run(
    endpoint: str, planned: list[PlannedRequest], duration_s: float, drain_s: float = 10.0, users: int | None = None
) -> tuple[list[RequestRecord], PhaseTimes]:
    async def main() -> tuple[list[RequestRecord], PhaseTimes]:
        ids = itertools.count(1000)
        async with LoadClient(endpoint, "stub", 20.0, ignore_eos=True) as client:
            times = await run_phase(
                client, "w", planned, duration_s, drain_s, concurrency=users, new_id=lambda: next(ids)
            )
            return client.records, times

    return asyncio.run(main())


def test_open_loop_sends_on_time_whatever_the_server_does(stub_endpoint: Start) -> None:
    records, times = run(stub_endpoint(tokens_per_s=5), requests(20, 0.05, max_tokens=10), 1.0)
    assert len(records) == 20
    scheduled = np.array([record.scheduled_ns for record in records])
    assert scheduled.tolist() == [times.start_ns + round(i * 0.05e9) for i in range(20)]
    sent = np.array([record.sent_ns for record in records])
    assert (sent >= scheduled).all()
    first_ended = min(record.end_ns for record in records if record.end_ns)
    assert (sent < first_ended).all(), "a request waited for another to end"
    assert all(record.status == "ok" for record in records)


def test_closed_loop_keeps_its_users_busy_and_no_more(stub_endpoint: Start) -> None:
    records, times = run(stub_endpoint(tokens_per_s=50), requests(4, max_tokens=5), 1.5, users=3)
    edges = sorted([(r.sent_ns, 1) for r in records] + [(r.end_ns, -1) for r in records])
    in_flight = list(itertools.accumulate(change for _, change in edges))
    assert max(in_flight) == 3
    assert len(records) > 4, "the pool is sent again"
    assert len({record.request_id for record in records}) == len(records)
    assert all(record.sent_ns < times.end_ns for record in records)


def test_the_drain_cuts_off_what_takes_too_long_and_keeps_it(stub_endpoint: Start) -> None:
    begun_s = time.monotonic()
    records, times = run(stub_endpoint(tokens_per_s=2), requests(3, 0.1, max_tokens=200), 0.5, drain_s=1.0)
    assert time.monotonic() - begun_s < 15
    assert [record.status for record in records] == ["aborted"] * 3
    assert all(record.first_token_ns for record in records)
    assert all("drain" in record.error for record in records)
    assert times.end_ns < times.drained_ns


def test_errors_in_the_stream_are_failures_with_their_reason(stub_endpoint: Start) -> None:
    records, _ = run(stub_endpoint(error_every=2, tokens_per_s=100), requests(6, 0.05), 0.5)
    assert sorted(record.status for record in records) == ["failed"] * 3 + ["ok"] * 3
    assert all(record.error for record in records if record.status == "failed")


def test_no_server_no_success(stub_endpoint: Start) -> None:
    records, _ = run("http://127.0.0.1:9", requests(3, 0.05), 0.3)
    assert [record.status for record in records] == ["failed"] * 3
    assert all("Connect" in record.error for record in records)


def test_tokens_are_the_servers_count(stub_endpoint: Start) -> None:
    records, _ = run(stub_endpoint(tokens_per_s=100), requests(3, 0.05, max_tokens=7), 0.3)
    assert [(record.prompt_tokens, record.completion_tokens) for record in records] == [(3, 7)] * 3
    for record in records:
        assert record.sent_ns <= record.first_token_ns <= record.last_token_ns <= record.end_ns


@pytest.mark.parametrize("users", [None, 4])
def test_a_cancelled_phase_leaves_nothing_in_flight(stub_endpoint: Start, users: int | None) -> None:
    endpoint = stub_endpoint(tokens_per_s=2)

    async def main() -> LoadClient:
        ids = itertools.count(1000)
        async with LoadClient(endpoint, "stub", 20.0) as client:
            planned = requests(8, 0.05, max_tokens=100)
            phase = run_phase(client, "w", planned, 30.0, 5.0, concurrency=users, new_id=lambda: next(ids))
            task = asyncio.create_task(phase)
            await asyncio.sleep(1.0)
            assert client.in_flight >= 4
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert client.in_flight == 0
            return client

    client = asyncio.run(main())
    assert all(record.status == "aborted" and record.end_ns and record.error for record in client.records)


def salts_sent(prompts: list[str], *, prefix_reuse: bool, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each request carried a cache salt."""
    salted = []

    async def note(self: LoadClient, body: dict[str, object], record: RequestRecord) -> None:
        salted.append("cache_salt" in body)

    monkeypatch.setattr(LoadClient, "_exchange", note)

    async def main() -> None:
        before: set[int] = set()
        for _ in range(2):
            async with LoadClient("http://e", "m", 1.0, prefix_reuse=prefix_reuse, sent_before=before) as client:
                for index, prompt in enumerate(prompts):
                    await client.send(PlannedRequest(index, index, prompt, 1), "w", 0)

    asyncio.run(main())
    return salted


def test_only_a_prompt_sent_before_gets_a_salt(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = salts_sent(["a", "b", "a"], prefix_reuse=False, monkeypatch=monkeypatch)
    assert sent == [False, False, True, True, True, True]
    assert not any(salts_sent(["a", "a"], prefix_reuse=True, monkeypatch=monkeypatch))


@pytest.mark.parametrize("text", ["hello world", [5, 6, 7, 8]])
def test_prompts_are_text_or_token_ids(stub_endpoint: Start, text: str | list[int]) -> None:
    records, _ = run(stub_endpoint(tokens_per_s=100), [PlannedRequest(0, 0, text, 2, 0)], 0.2)
    assert records[0].status == "ok"
