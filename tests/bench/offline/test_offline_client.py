"""The simulated load client: closed loops, what is cut off, prompts that matter."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from inference_energy.bench.offline.client import CUT_OFF
from inference_energy.bench.offline.session import SimulatedSession, simulate
from inference_energy.bench.truth.prefix_cache import output_length
from inference_energy.contracts import requests, server_metrics
from inference_energy.contracts.io import read_table
from tests.bench.offline.plans import Load, node, phase, plan, written


def in_flight(found: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Moments, and how many requests are under way from each on; one that ends when another begins is over first."""
    starts, ends = found["sent_ns"].to_numpy(dtype=np.int64), found["end_ns"].to_numpy(dtype=np.int64)
    moments = np.concatenate((ends, starts))
    steps = np.concatenate((-np.ones(len(ends)), np.ones(len(starts))))
    order = np.argsort(moments, kind="stable")
    return moments[order], np.cumsum(steps[order])


@pytest.mark.parametrize("users", [1, 7, 40])
def test_a_closed_loop_keeps_its_users_busy_and_has_no_more(users: int) -> None:
    session = simulate(plan(Load(users=users, output=30)), node())
    moments, count = in_flight(session.requests)
    assert count.max() == users
    start_ns, end_ns = phase(session, "window", "load")
    lengths_ns = np.diff(np.clip(moments, start_ns, end_ns), append=end_ns)
    mean = float((count * lengths_ns).sum()) / (end_ns - start_ns)
    assert 0.99 * users < mean < users
    # Nobody asks any more once the window is over, and everybody who asked gets the answer.
    assert session.requests["sent_ns"].max() < end_ns
    assert (session.requests["status"] == "ok").all()
    assert count[-1] == 0


def test_a_user_sends_the_next_request_right_after_the_last_answer() -> None:
    session = simulate(plan(Load(users=3, output=30)), node())
    found = session.requests
    assert set(found["user"]) == {0, 1, 2}
    for _, own in found.sort_values("sent_ns").groupby("user"):
        waits_s = (own["sent_ns"].to_numpy()[1:] - own["end_ns"].to_numpy()[:-1]) / 1e9
        assert waits_s.min() > 0
        assert waits_s.max() < 2e-3


def test_a_closed_loop_uses_its_pool_in_turn_and_again() -> None:
    session = simulate(plan(Load(users=2, output=20, pool=5)), node())
    sent = list(session.requests.sort_values("request_id")["prompt_id"])
    assert len(sent) > 15
    assert sent == [100 + place % 5 for place in range(len(sent))]


@pytest.fixture(scope="module")
def cut() -> SimulatedSession:
    """Answers take seconds, and the client waits only half a second for them."""
    loads = (Load(rate_qps=5.0, output=600), Load("after", output=20))
    return simulate(plan(*loads, drain_s=0.5), node())


def test_what_is_open_after_the_drain_is_cut_off(
    cut: SimulatedSession, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = read_table(written(cut, tmp_path_factory.mktemp("raw")).requests, requests.SCHEMA)
    first = found[found["cell"] == "load"]
    aborted = first[first["status"] == "aborted"]
    assert 5 < len(aborted) < len(first)
    assert (found.loc[found["cell"] == "after", "status"] == "ok").all()
    unknown = ["prompt_tokens", "cached_tokens", "completion_tokens", "finish_reason"]
    assert aborted[unknown].isna().all(axis=None)
    assert (aborted["error"] == CUT_OFF).all()
    # They keep the times of what they had got, and end when the client gave up: half a second after the window.
    assert aborted["first_token_ns"].notna().sum() > 5
    limit_ns = phase(cut, "window", "load")[1] + 500_000_000
    assert (aborted["end_ns"] - limit_ns).between(0, 50_000_000).all()
    assert (aborted["last_token_ns"].dropna() <= aborted["end_ns"]).all()
    assert phase(cut, "drain", "load")[1] >= aborted["end_ns"].max()


def test_what_was_cut_off_stays_in_the_servers_counters(
    cut: SimulatedSession, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = written(cut, tmp_path_factory.mktemp("raw"))
    found = read_table(files.server_metrics, server_metrics.SCHEMA)
    total = found.loc[found["name"] == "vllm:generation_tokens_total", "value"].max()
    assert total == sum(request.generated for request in cut.client.sent.request)
    assert total > cut.requests["completion_tokens"].sum() + 500
    start_ns, end_ns = phase(cut, "window", "after")
    running = found[(found["name"] == "vllm:num_requests_running") & found["timestamp_ns"].between(start_ns, end_ns)]
    assert running["value"].max() <= 3  # nothing of the first window is left
    assert not cut.engines[0].running
    assert not cut.engines[0].waiting
    assert cut.engines[0].blocks.used == 0


def test_without_a_drain_the_window_ends_with_what_is_under_way() -> None:
    session = simulate(plan(Load(users=4, output=400), drain_s=0.0), node())
    assert Counter(session.requests["status"])["aborted"] == 4
    assert phase(session, "drain", "load")[1] - phase(session, "drain", "load")[0] < 50_000_000


def test_prompts_that_share_their_beginning_are_cached_where_reuse_is_asked_for() -> None:
    shared = list(range(2000, 2096))  # six blocks of 16
    contents = [[*shared, *range(5000 + 40 * n, 5040 + 40 * n)] for n in range(400)]
    loads = (Load("reused", prefix_reuse=True), Load("salted", prefix_reuse=False))
    session = simulate(plan(*loads, contents=contents), node())
    found = session.requests
    reused = found.loc[found["cell"] == "reused", "cached_tokens"].to_numpy(dtype=np.int64)
    assert (reused[1:] == 96).all()
    assert reused[0] == 0
    assert (found.loc[found["cell"] == "salted", "cached_tokens"] == 0).all()
    assert (found["prompt_tokens"] == 136).all()
    start_ns, end_ns = phase(session, "window", "reused")[0], phase(session, "drain", "reused")[1]
    assert session.truth.cached_tokens(start_ns, end_ns) == reused.sum()
    plain = simulate(plan(loads[0], contents=contents), node(engine={"enable_prefix_caching": False}))
    assert (plain.requests["cached_tokens"] == 0).all()


def test_caching_saves_energy() -> None:
    contents = [list(range(2000, 5000))]
    energies = []
    for reuse in (True, False):
        session = simulate(plan(Load(prefix_reuse=reuse, output=2), contents=contents), node())
        start_ns = phase(session, "window", "load")[0]
        energies.append(session.truth.energy_j(start_ns, start_ns + 10**10))
    assert energies[0] < 0.9 * energies[1]


def test_prompts_may_be_texts() -> None:
    texts = ["one two three", "the same long beginning of sixteen words in all it must be so for one block a", "x"]
    session = simulate(plan(Load(prefix_reuse=True, ignore_eos=False, output=300), contents=texts), node())
    found = session.requests
    content = [texts[(int(number) - 100) % 3] for number in found["prompt_id"]]
    assert list(found["prompt_tokens"]) == [len(text.split()) for text in content]
    answers = [output_length(text, 5, 300) for text in content]
    assert list(found["completion_tokens"]) == [length for length, _ in answers]
    assert list(found["finish_reason"]) == [why for _, why in answers]
    long = found[found["prompt_tokens"] > 16]
    assert list(long["cached_tokens"])[1:] == [16] * (len(long) - 1)


def test_the_models_own_lengths_go_by_content_and_seed() -> None:
    contents = [list(range(start, start + 20)) for start in range(1000, 3000, 20)]
    load = Load(ignore_eos=False, output=8000, prompt=20)
    first, again, other = (
        simulate(plan(load, contents=contents), node(seed=seed)).requests["completion_tokens"] for seed in (5, 5, 6)
    )
    assert list(first) == list(again) != list(other)
    assert len(set(first)) > 0.8 * len(first)
    answered = simulate(plan(load, contents=contents), node()).requests
    assert set(answered["finish_reason"]) == {"stop"}
