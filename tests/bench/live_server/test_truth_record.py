"""What the server writes about itself: every joule once, every token in order, readable after a crash as well."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from inference_energy.bench.live.truth_files import EVENTS, REQUESTS, SERVER, STEPS, finish, physics_of, read_truth
from inference_energy.bench.truth.ledger import GPU_IDLE
from inference_energy.bench.truth.power_trace import TRACE_DTYPE, device_power
from tests.bench.live_server.servers import LIMIT_S, LiveServer

pytestmark = pytest.mark.slow

FLAGS = ("--max-num-seqs", "8", "--max-num-batched-tokens", "128")


def load(server: LiveServer, requests: int = 24) -> None:
    """Streams and whole answers, more than run at once, some of which share a prefix; one client goes away."""

    def one(number: int) -> None:
        prompt = [number % 4, *range(number % 7 * 30)]
        if number % 3:
            server.stream({"prompt": prompt, "max_tokens": 40})
        else:
            server.complete(prompt, 40)

    with ThreadPoolExecutor(requests) as pool:
        list(pool.map(one, range(requests)))


def tables(server: LiveServer) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    steps, requests, events = (read_truth(server.truth, name).to_pandas() for name in (STEPS, REQUESTS, EVENTS))
    return steps, requests, events


def test_every_joule_belongs_to_a_request_or_to_rest(start: Callable[..., LiveServer]) -> None:
    server = start(*FLAGS, "--tensor-parallel-size", "2")
    load(server)
    assert server.stop() == 0
    steps, requests, _ = tables(server)
    about = json.loads((server.truth / SERVER).read_text())
    assert about["orderly"]
    assert about["simulated"]
    energy_j = 2 * steps["gpu_w"] * (steps["end_ns"] - steps["start_ns"]) / 1e9
    requests_j = requests["prefill_energy_j"] + requests["decode_energy_j"]
    assert requests_j.sum() == pytest.approx(energy_j[steps["sequences"] > 0].sum(), rel=1e-9)
    assert about["rest_energy_j"] == pytest.approx(energy_j[steps["sequences"] == 0].sum(), rel=1e-9)
    assert about["total_energy_j"] == pytest.approx(energy_j.sum(), rel=1e-9)
    assert about["requests_energy_j"] == pytest.approx(requests_j.sum(), rel=1e-9)
    assert (requests["prefill_energy_j"] > 0).all()


def test_time_runs_on_without_gaps_or_drift(start: Callable[..., LiveServer]) -> None:
    server = start(*FLAGS)
    load(server)
    server.stop()
    steps, requests, events = tables(server)
    assert (steps["start_ns"].to_numpy()[1:] == steps["end_ns"].to_numpy()[:-1]).all()
    assert len(requests) == 24
    begins_ns = steps["start_ns"][steps["sequences"] > 0].to_numpy()
    ends_ns = steps["end_ns"][steps["sequences"] > 0].to_numpy()
    admitted_ns = begins_ns[[step[0] for step in requests["chunk_step"]]]
    assert (admitted_ns >= requests["arrival_ns"]).all()
    assert (ends_ns[[step[-1] for step in requests["chunk_step"]]] == requests["first_token_ns"]).all()
    assert set(events["due_ns"]) <= set(ends_ns)


def test_events_are_each_token_sent_in_order(start: Callable[..., LiveServer]) -> None:
    server = start(*FLAGS)
    load(server)
    server.stop()
    _, requests, events = tables(server)
    assert (events["sent_ns"] >= events["due_ns"]).all()
    streamed = requests.set_index("request_id").loc[events["request_id"].unique()]
    assert len(streamed) == 16
    for request_id, sent in events.groupby("request_id"):
        request = streamed.loc[request_id]
        assert sent["token"].tolist() == list(range(1, request["completion_tokens"] + 1))
        assert sent["due_ns"].is_monotonic_increasing
        assert sent["sent_ns"].is_monotonic_increasing
        assert sent["due_ns"].iloc[[0, -1]].tolist() == [request["first_token_ns"], request["last_token_ns"]]
    assert set(requests["outcome"]) <= {"stop", "length"}


def test_the_trace_holds_the_same_energy_as_the_steps(start: Callable[..., LiveServer]) -> None:
    server = start(*FLAGS)
    time.sleep(0.7)
    load(server)
    time.sleep(0.7)
    pid = server.process.pid
    server.stop()
    trace = np.fromfile(server.node.traces / f"{pid}.trace", dtype=TRACE_DTYPE)
    assert np.isnan(trace["gpu_w"][-1])
    assert not np.isnan(trace["gpu_w"][:-1]).any()
    assert (np.diff(trace["start_ns"]) >= 0).all()
    assert np.median(np.diff(trace["start_ns"][~trace["busy"].astype(bool)])) < 0.5e9, "at rest too"
    assert np.diff(trace["start_ns"]).max() < 1e9  # promised is 0.5 s, on a machine that does nothing else
    steps, _, _ = tables(server)
    edges_ns = np.array([steps["start_ns"].iloc[0], steps["end_ns"].iloc[-1]])
    told_j = np.diff(device_power(trace[:-1]).energy_j(edges_ns))[0]
    true_j = (steps["gpu_w"] * (steps["end_ns"] - steps["start_ns"]) / 1e9).sum()
    assert told_j == pytest.approx(true_j, rel=1e-4)
    assert trace["events"][0] == GPU_IDLE
    assert trace["busy"].any()


def test_loading_draws_cold_idle(start: Callable[..., LiveServer]) -> None:
    server = start(faults={"server": {"start_delay_s": 1.0}})
    time.sleep(0.5)
    server.stop()
    trace = np.fromfile(server.node.traces / f"{server.process.pid}.trace", dtype=TRACE_DTYPE)
    device = server.node.node.device
    assert trace["gpu_w"][0] == pytest.approx(device.cold_idle_w, abs=1)
    assert trace["gpu_w"][-2] == pytest.approx(device.loaded_idle_w, abs=1)


def test_a_crash_leaves_what_was_written(start: Callable[..., LiveServer]) -> None:
    server = start(*FLAGS)
    load(server)
    deadline = time.monotonic() + LIMIT_S
    while (
        len(read_truth(server.truth, REQUESTS)) < 24 or read_truth(server.truth, STEPS).to_pandas()["running"].iloc[-1]
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    server.kill()
    with (server.truth / "steps.arrows").open("ab") as stream:
        stream.write(b"\xff\xff\xff\xff\x10")  # a batch that was cut off
    assert not (server.truth / "requests.parquet").exists()
    assert not json.loads((server.truth / SERVER).read_text())["orderly"]
    before = tables(server)
    totals = finish(server.truth, physics_of(server.truth))
    after = tables(server)
    assert after[0].equals(before[0])
    assert after[2].equals(before[2])
    requests_j = (after[1]["prefill_energy_j"] + after[1]["decode_energy_j"]).sum()
    assert totals["requests_energy_j"] == pytest.approx(requests_j, rel=1e-12)
    assert totals["total_energy_j"] == pytest.approx(requests_j + totals["rest_energy_j"], rel=1e-9)
    assert list(server.truth.glob("*.arrows")) == []


def test_a_server_that_did_nothing_has_a_record_too(start: Callable[..., LiveServer]) -> None:
    server = start()
    assert server.stop() == 0
    steps, requests, events = tables(server)
    assert len(requests) == len(events) == 0
    assert (steps["sequences"] == 0).all()
    about = json.loads((server.truth / SERVER).read_text())
    assert about["total_energy_j"] == about["rest_energy_j"] > 0
