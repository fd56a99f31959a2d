"""What a simulated session leaves: phases, requests, metrics and idle, as acquisition leaves them."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from inference_energy.bench.offline.session import SimulatedSession, simulate
from inference_energy.contracts import phases, power, requests, server_metrics
from inference_energy.contracts.io import read_json, read_metadata, read_table
from inference_energy.errors import InputError
from inference_energy.stages.chain import RawSession
from tests.bench.offline.plans import TIMES, WARMUP, Load, node, phase, plan, written

LOADS = (WARMUP, Load("slow"), Load("users", users=6), Load("fast", rate_qps=30.0, output=80))
REQUIRED = ["request_id", "cell", "worker", "endpoint", "prompt_id", "scheduled_ns", "sent_ns", "end_ns"]


@pytest.fixture(scope="module")
def session() -> SimulatedSession:
    return simulate(plan(*LOADS), node())


@pytest.fixture(scope="module")
def files(session: SimulatedSession, tmp_path_factory: pytest.TempPathFactory) -> RawSession:
    return written(session, tmp_path_factory.mktemp("raw"))


def test_phases_come_in_the_order_of_a_real_session(files: RawSession) -> None:
    found = read_table(files.phases, phases.SCHEMA)
    cells = [(name, load.name) for load in LOADS for name in ("warmup" if load is WARMUP else "window", "drain")]
    expected = [("launch", None), ("loaded_idle", None), *cells, ("stop", None), ("post_idle", None)]
    cell_of = [None if pd.isna(cell) else cell for cell in found["cell"]]
    assert list(zip(found["phase"], cell_of, strict=True)) == expected
    assert (found["end_ns"] >= found["start_ns"]).all()
    assert (found["start_ns"].to_numpy()[1:] >= found["end_ns"].to_numpy()[:-1]).all()


def test_load_follows_load_without_a_hole_and_the_idles_wait_to_settle(session: SimulatedSession) -> None:
    settle_ns = round(TIMES["settle_s"] * 1e9)
    begins_ns = phase(session, "loaded_idle")[1]
    assert phase(session, "loaded_idle")[0] - phase(session, "launch")[1] == settle_ns
    for load in LOADS:
        start_ns, end_ns = phase(session, "warmup" if load is WARMUP else "window", load.name)
        assert start_ns == begins_ns
        assert end_ns - start_ns == round(load.duration_s * 1e9)
        assert phase(session, "drain", load.name)[0] == end_ns
        begins_ns = phase(session, "drain", load.name)[1]
    assert phase(session, "stop")[0] == begins_ns
    assert phase(session, "post_idle")[0] - phase(session, "stop")[1] == settle_ns
    lengths_s = {name: (phase(session, name)[1] - phase(session, name)[0]) / 1e9 for name in ("launch", "post_idle")}
    assert lengths_s == {"launch": TIMES["launch_s"], "post_idle": TIMES["post_s"]}


def test_a_phase_of_no_length_is_left_out() -> None:
    names = [row["phase"] for row in simulate(plan(Load(), loaded_s=0.0, post_s=0.0), node()).phases]
    assert names == ["launch", "window", "drain", "stop"]


def test_the_drain_lasts_until_the_last_answer_is_there(session: SimulatedSession) -> None:
    for load in LOADS:
        own = session.requests[session.requests["cell"] == load.name]
        _, drained_ns = phase(session, "drain", load.name)
        window_end_ns = phase(session, "drain", load.name)[0]
        assert own["end_ns"].max() <= drained_ns
        assert drained_ns == max(own["end_ns"].max(), window_end_ns)


def test_requests_have_the_contracts_columns_types_and_nulls(files: RawSession) -> None:
    found = read_table(files.requests, requests.SCHEMA)
    assert list(found.columns) == requests.SCHEMA.names
    whole = [field.name for field in requests.SCHEMA if str(field.type) == "int64"]
    assert all(found[name].dtype == pd.Int64Dtype() for name in whole)
    assert (found["status"] == "ok").all()
    assert found["error"].isna().all()
    assert found["user"].notna().equals(found["cell"].isin([load.name for load in LOADS if load.users]))
    assert found[["conversation", "turn"]].isna().all(axis=None)
    assert found.drop(columns=["error", "user", "conversation", "turn"]).notna().all(axis=None)
    assert found["request_id"].is_unique
    assert set(found["prompt_id"]) <= set(range(100, 100 + 1000))
    assert set(found["finish_reason"]) == {"length"}
    assert read_metadata(files.requests)["clock_anchor"] == read_metadata(files.power)["clock_anchor"]


def test_what_happens_to_a_request_happens_in_order(session: SimulatedSession, files: RawSession) -> None:
    found = read_table(files.requests, requests.SCHEMA)
    order = ["scheduled_ns", "sent_ns", "first_token_ns", "last_token_ns", "end_ns"]
    for earlier, later in pairwise(order):
        assert (found[later] >= found[earlier]).all(), (earlier, later)
    assert (found["sent_ns"] < found["first_token_ns"]).all()
    for load in LOADS:
        start_ns, end_ns = phase(session, "warmup" if load is WARMUP else "window", load.name)
        own = found[found["cell"] == load.name]
        assert ((own["scheduled_ns"] >= start_ns) & (own["scheduled_ns"] < end_ns)).all()


def test_an_open_loop_sends_all_its_schedule_at_its_times(session: SimulatedSession) -> None:
    schedule = session.plan.schedule
    for load in (WARMUP, LOADS[1], LOADS[3]):
        start_ns, _ = phase(session, "warmup" if load is WARMUP else "window", load.name)
        due_ns = start_ns + schedule.loc[schedule["cell"] == load.name, "arrival_ns"]
        own = session.requests[session.requests["cell"] == load.name]
        assert list(own["scheduled_ns"]) == list(due_ns)
        lag_s = (own["sent_ns"] - own["scheduled_ns"]) / 1e9
        assert 0.2e-3 < lag_s.median() < 2e-3


def test_counts_and_times_are_the_engines(session: SimulatedSession) -> None:
    (engine,) = session.engines
    asked, found = session.client.sent.request, session.requests
    assert list(found["completion_tokens"]) == [request.generated for request in asked]
    assert list(found["prompt_tokens"]) == [request.prompt_tokens for request in asked]
    assert list(found["cached_tokens"]) == [request.cached_tokens for request in asked]
    assert {load.name: set(found.loc[found["cell"] == load.name, "completion_tokens"]) for load in LOADS} == {
        load.name: {load.output} for load in LOADS
    }
    assert found["completion_tokens"].sum() == engine.segments.integers("samples").sum()
    start_ns, end_ns = session.log_ns
    assert session.truth.output_tokens(start_ns, end_ns) == found["completion_tokens"].sum()
    assert session.truth.prompt_tokens(start_ns, end_ns) == found["prompt_tokens"].sum()
    for name in ("first_token_ns", "last_token_ns"):
        late_ns = found[name].to_numpy(dtype=np.int64) - np.array([getattr(request, name) for request in asked])
        assert late_ns.min() >= 200_000
        assert late_ns.max() < 10_000_000


def test_true_tokens_fall_into_the_stretch_in_which_their_step_ended(session: SimulatedSession) -> None:
    log, truth = session.engines[0].segments, session.truth
    ends_ns, samples = log.integers("end_ns"), log.integers("samples")
    start_ns, end_ns = phase(session, "window", "fast")
    inside = np.flatnonzero((ends_ns > start_ns) & (ends_ns < end_ns) & (samples > 1))
    first, last = int(ends_ns[inside[10]]), int(ends_ns[inside[-10]])
    between = int(samples[inside[10] : inside[-10]].sum())
    assert truth.output_tokens(first, last) == between  # [start, end): the last step is the next stretch's
    assert truth.output_tokens(first, last + 1) == between + samples[inside[-10]]
    assert truth.output_tokens(first + 1, last) == between - samples[inside[10]]


def test_the_metrics_rise_to_the_true_totals(session: SimulatedSession, files: RawSession) -> None:
    found = read_table(files.server_metrics, server_metrics.SCHEMA)
    assert set(found["labels"]) == {json.dumps({"engine": "0"})}
    series = {str(name): rows["value"].to_numpy() for name, rows in found.groupby("name", sort=False)}
    totals = {name: values for name, values in series.items() if name.endswith(("_total", "_count", "_sum"))}
    assert all((np.diff(values) >= 0).all() and values[0] == 0 for values in totals.values())
    log = session.engines[0].segments
    assert {name: values[-1] for name, values in totals.items()} == {
        "vllm:generation_tokens_total": session.requests["completion_tokens"].sum(),
        "vllm:prompt_tokens_total": session.requests["prompt_tokens"].sum(),
        "vllm:prompt_tokens_cached_total": 0,
        "vllm:num_preemptions_total": 0,
        "vllm:iteration_tokens_total_count": (log.integers("sequences") > 0).sum(),
        "vllm:iteration_tokens_total_sum": session.requests["completion_tokens"].sum()
        + session.requests["prompt_tokens"].sum(),
    }
    times_ns = np.unique(found["timestamp_ns"])
    assert times_ns[0] == phase(session, "launch")[1]
    assert times_ns[-1] == phase(session, "stop")[0]
    grid_ns = np.arange(times_ns[0], times_ns[-1], round(session.plan.metrics_interval_s * 1e9))
    cells_ns = [row["start_ns"] if row["phase"] != "drain" else row["end_ns"] for row in session.phases if row["cell"]]
    assert set(times_ns) == {*grid_ns, *cells_ns, times_ns[-1]}


def test_the_gauges_show_the_load(session: SimulatedSession, files: RawSession) -> None:
    found = read_table(files.server_metrics, server_metrics.SCHEMA)
    running = found[found["name"] == "vllm:num_requests_running"].set_index("timestamp_ns")["value"]
    start_ns, end_ns = phase(session, "window", "users")
    assert running[(running.index > start_ns) & (running.index < end_ns)].median() == 6
    idle_from, idle_to = phase(session, "loaded_idle")
    assert (running[(running.index >= idle_from) & (running.index < idle_to)] == 0).all()
    usage = found[found["name"] == "vllm:kv_cache_usage_perc"]["value"]
    assert 0 < usage.max() < 1


def test_the_power_logs_reach_beyond_what_is_measured(session: SimulatedSession, files: RawSession) -> None:
    log = read_table(files.power, power.SCHEMA)
    main = log[(log["domain"] == "gpu") & log["power_average_w"].notna()]
    assert main["timestamp_ns"].min() < phase(session, "launch")[0]
    assert main["timestamp_ns"].max() > phase(session, "post_idle")[1]
    cold = read_table(files.idle_power, power.SCHEMA)
    facts = read_json(files.idle)
    assert (facts["start_ns"], facts["end_ns"]) == session.cold_ns
    assert facts["duration_s"] == TIMES["cold_s"]
    assert cold["timestamp_ns"].min() < facts["start_ns"] < facts["end_ns"] < cold["timestamp_ns"].max()
    assert facts["end_ns"] < phase(session, "launch")[0]
    (source,) = read_metadata(files.power)["source"]
    assert (source["name"], source["grade"]) == ("nvml", "simulated")


def test_the_session_says_that_it_is_simulated(files: RawSession) -> None:
    facts = read_json(files.session)
    assert "simulated" in facts["model"]
    assert facts["server"]["version"] == "simulated"
    assert facts["simulated"]["seed"] == 5
    assert set(facts["windows"]) == {"slow", "users", "fast"}
    assert facts["warmup"]["kind"] == "warmup"


def test_a_session_without_a_request_still_has_all_its_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    session = simulate(plan(Load(rate_qps=0.001)), node())
    found = written(session, tmp_path_factory.mktemp("raw"))
    assert len(read_table(found.requests, requests.SCHEMA)) == 0
    assert (phase(session, "window", "load")[1] - phase(session, "window", "load")[0]) / 1e9 == 10.0
    assert session.truth.output_tokens(*session.log_ns) == 0


def test_a_request_that_is_too_long_is_refused() -> None:
    with pytest.raises(InputError, match=r"8000 \+ 400 tokens does not fit into max_model_len, 8192"):
        simulate(plan(Load(prompt=8000, output=400)), node())
