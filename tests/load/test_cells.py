"""Cells of load against a stub server: arrivals, users, drain, failures."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.load.plans import closed_rows, logged, open_rows, row, run, settings, write_plan

from inference_energy.acquire.load.standalone import run_plan

pytestmark = pytest.mark.slow

Start = Callable[..., str]


def test_open_loop_sends_on_time_whatever_the_server_does(stub_endpoint: Start, tmp_path: Path) -> None:
    sent, result = run(stub_endpoint(tokens_per_s=5), tmp_path, open_rows(20, 0.05, max_tokens=10), 1.0, workers=2)
    start_ns = result.times.start_ns
    assert sent["request_id"].tolist() == list(range(20))
    assert sent["scheduled_ns"].tolist() == [start_ns + round(number * 0.05e9) for number in range(20)]
    assert (sent["sent_ns"] >= sent["scheduled_ns"]).all()
    assert (sent["sent_ns"] < sent["end_ns"].min()).all(), "a request waited for another to end"
    assert (sent["status"] == "ok").all()
    assert set(sent["worker"]) == {0, 1}


def test_closed_loop_keeps_its_users_busy_and_no_more(stub_endpoint: Start, tmp_path: Path) -> None:
    sent, result = run(stub_endpoint(tokens_per_s=50), tmp_path, closed_rows(4, 3), 1.5, workers=2)
    edges = sorted([(at, 1) for at in sent["sent_ns"]] + [(at, -1) for at in sent["end_ns"]])
    assert max(itertools.accumulate(change for _, change in edges)) == 3
    assert len(sent) > 4, "the pool is sent again"
    assert sent["request_id"].is_unique
    assert (sent["scheduled_ns"] < result.times.end_ns).all()
    assert sent.groupby("user")["worker"].nunique().eq(1).all()


def test_users_think_before_each_request(stub_endpoint: Start, tmp_path: Path) -> None:
    sent, result = run(stub_endpoint(tokens_per_s=200), tmp_path, closed_rows(2, 2, think_ns=150_000_000), 2.0)
    for _, own in sent.sort_values("sent_ns").groupby("user"):
        ended_ns = [result.times.start_ns, *own["end_ns"].tolist()]
        assert len(own) > 2
        assert own["scheduled_ns"].tolist() == [at + 150_000_000 for at in ended_ns[:-1]]
        assert (own["sent_ns"] >= own["scheduled_ns"]).all()


def test_the_drain_cuts_off_what_takes_too_long_and_keeps_it(stub_endpoint: Start, tmp_path: Path) -> None:
    rows = open_rows(3, 0.1, max_tokens=200)
    sent, result = run(stub_endpoint(tokens_per_s=2), tmp_path, rows, 0.5, workers=2, drain_s=1.0)
    assert sent["status"].tolist() == ["aborted"] * 3
    assert sent["first_token_ns"].notna().all()
    assert sent["error"].str.contains("cut off").all()
    assert result.times.end_ns + 1_000_000_000 <= result.times.drained_ns
    assert sent["end_ns"].between(result.times.end_ns, result.times.drained_ns).all()
    assert result.counts.aborted == 3


def test_endpoints_are_used_alike_however_many_processes_there_are(stub_endpoint: Start, tmp_path: Path) -> None:
    endpoints = (stub_endpoint(tokens_per_s=100), stub_endpoint(tokens_per_s=100))
    write_plan(tmp_path, open_rows(12, 0.02))
    asked = replace(settings(endpoints[0], 0.5, workers=4), endpoints=endpoints)
    asyncio.run(run_plan(tmp_path, asked))
    sent = logged(tmp_path)
    assert sent["endpoint"].value_counts().to_dict() == dict.fromkeys(endpoints, 6)
    first = sent.sort_values("scheduled_ns").groupby("worker")["endpoint"].first()
    assert first.tolist() == [*endpoints, *endpoints]


def test_errors_in_the_stream_are_failures_with_their_reason(stub_endpoint: Start, tmp_path: Path) -> None:
    sent, result = run(stub_endpoint(error_every=2, tokens_per_s=100), tmp_path, open_rows(6, 0.05), 0.5)
    assert sorted(sent["status"]) == ["failed"] * 3 + ["ok"] * 3
    assert sent.loc[sent["status"] == "failed", "error"].notna().all()
    assert (result.counts.ok, result.counts.failed) == (3, 3)


def test_a_closed_loop_does_not_spin_on_failures(stub_endpoint: Start, tmp_path: Path) -> None:
    sent, result = run("http://127.0.0.1:9", tmp_path, closed_rows(2, 2), 1.0)
    assert (len(sent), 0) == (result.counts.failed, result.counts.ok)
    for _, own in sent.sort_values("scheduled_ns").groupby("user"):
        assert 1 < len(own) <= 5, "each 0.2 s, at most"
        assert own["scheduled_ns"].tolist()[1:] == [at + 200_000_000 for at in own["end_ns"].tolist()[:-1]]


def test_no_server_no_success_and_the_requests_are_kept(tmp_path: Path) -> None:
    sent, result = run("http://127.0.0.1:9", tmp_path, open_rows(3, 0.05), 0.3)
    assert sent["status"].tolist() == ["failed"] * 3
    assert "refused" in (result.counts.first_error or "")


def test_tokens_are_the_servers_count(stub_endpoint: Start, tmp_path: Path) -> None:
    sent, _ = run(stub_endpoint(tokens_per_s=100), tmp_path, open_rows(3, 0.05, max_tokens=7), 0.3)
    assert sent[["prompt_tokens", "completion_tokens"]].to_numpy().tolist() == [[3, 7]] * 3
    times = sent[["sent_ns", "first_token_ns", "last_token_ns", "end_ns"]]
    assert (times.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)


@pytest.mark.parametrize(
    "prompt", [{"text": "hello world"}, {"token_ids": [5, 6, 7, 8]}, {"messages": '[{"role": "user", "content": "a"}]'}]
)
def test_prompts_are_texts_token_ids_or_messages(
    stub_endpoint: Start, tmp_path: Path, prompt: dict[str, object]
) -> None:
    workload = {"api": "chat" if "messages" in prompt else "completions"}
    sent, _ = run(stub_endpoint(tokens_per_s=100), tmp_path, [row(0, arrival_ns=0)], 0.2, [prompt], workload)
    assert sent["status"].tolist() == ["ok"]


def test_chunks_and_answers_are_written_where_they_are_wanted(stub_endpoint: Start, tmp_path: Path) -> None:
    import pandas as pd

    wanted = {"chunk_times": True, "keep_answers": True}
    endpoint = stub_endpoint(tokens_per_s=100)
    sent, _ = run(endpoint, tmp_path / "a", open_rows(4, 0.02), 0.3, workload=wanted, workers=2)
    chunks, answers = (pd.read_parquet(tmp_path / "a" / f"{name}.parquet") for name in ("chunks", "answers"))
    assert chunks.groupby("request_id")["events"].sum().to_dict() == dict.fromkeys(range(4), 5)
    first = chunks.groupby("request_id")["timestamp_ns"].min()
    assert (first.to_numpy() == sent.sort_values("request_id")["first_token_ns"].to_numpy()).all()
    assert sorted(answers["request_id"]) == [0, 1, 2, 3]
    assert answers["text"].str.len().gt(0).all()
    run(endpoint, tmp_path / "b", open_rows(2, 0.02), 0.1)
    assert sorted(path.name for path in (tmp_path / "b").glob("*.parquet")) == [
        *("prompts.parquet", "requests.parquet", "schedule.parquet"),
    ]
