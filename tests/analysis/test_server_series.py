"""Series of one quantity become one number as their labels demand, or none with the reason."""

import json

import numpy as np
import pandas as pd
import pytest

from inference_energy.analysis.server_metrics import ServerMetrics, queue_times
from inference_energy.analysis.token_reconciliation import CellSpan, compare_cell
from inference_energy.contracts.engine_metrics import group_series

S = 1_000_000_000
TIMES_S = np.arange(10)
EDGES_NS = np.array([0, 10 * S])
RUNNING, KV = "sglang:num_running_reqs", "sglang:token_usage"
GENERATED, PROMPT = "vllm:generation_tokens_total", "vllm:prompt_tokens_total"


def rows(name, values, **labels):
    frame = {"timestamp_ns": TIMES_S * S, "name": name, "labels": json.dumps(labels, sort_keys=True)}
    return pd.DataFrame({**frame, "value": np.broadcast_to(np.asarray(values, float), TIMES_S.shape)})


def metrics(*parts, model="m"):
    return ServerMetrics(pd.concat(parts), model)


def running(*parts, quantity="running", model="m"):
    found = metrics(*parts, model=model)
    means = found.block_means(quantity, EDGES_NS)
    return means[0] if means else found.unclear(quantity)


def ranks(name, values, label="tp_rank", **labels):
    return [rows(name, value, **{label: str(rank)}, **labels) for rank, value in enumerate(values)]


@pytest.mark.parametrize("label", ["tp_rank", "pp_rank", "moe_ep_rank"])
def test_ranks_with_the_same_requests_are_counted_once(label):
    assert running(*ranks(RUNNING, [8, 8, 8, 8], label)) == 8
    assert running(*ranks(KV, [0.4] * 4, label), quantity="kv_use") == pytest.approx(0.4)


@pytest.mark.parametrize("label", ["dp_rank", "engine", "replica"])
def test_replicas_add_up_and_shares_have_their_mean(label):
    assert running(*ranks(RUNNING, [8, 2], label)) == 10
    assert running(*ranks(KV, [0.4, 0.2], label), quantity="kv_use") == pytest.approx(0.3)


def test_ranks_of_replicas_count_once_a_replica():
    parts = [part for dp in ("0", "1") for part in ranks(RUNNING, [3 + int(dp)] * 2, dp_rank=dp)]
    assert running(*parts) == 7


def test_ranks_a_step_apart_are_the_same_and_one_that_never_reports_is_left_out():
    late = np.array([8, 8, 8, 7, 8, 8, 8, 8, 8, 8])
    assert running(*ranks(RUNNING, [8, late])) == 8
    assert running(*ranks(RUNNING, [8, 0])) == 8


def test_ranks_that_differ_are_no_copies():
    assert "ranks that should work on the same requests differ" in running(*ranks(RUNNING, [8, 3]))


def test_an_unknown_label_that_differs_withholds_and_one_that_does_not_is_ignored():
    assert running(*ranks(RUNNING, [8, 8], "tenant")) == (
        "The server's series sglang:num_running_reqs make no number: they differ in the label `tenant`, whose meaning "
        "is not known."
    )
    assert running(rows(RUNNING, 8, tenant="a")) == 8


def test_a_sum_beside_its_parts_is_not_added_again():
    parts = [rows(RUNNING, 8, priority=""), *ranks(RUNNING, [5, 3], "priority")]
    assert running(*parts) == 8
    assert "one may be the others' sum" in running(rows(RUNNING, 8), *ranks(RUNNING, [5, 3], "dp_rank"))


def test_only_the_measured_model_counts():
    parts = ranks(RUNNING, [8], model_name="m") + ranks(RUNNING, [90], model_name="other")
    assert running(*parts) == 8
    assert "several models (m, other), none of which is x" in running(*parts, model="x")
    # One model alone may be called by an alias, or be the base of an adapter.
    assert running(*ranks(RUNNING, [8], model_name="base"), model="adapter") == 8


def test_a_series_twice_on_a_page_is_no_number():
    assert "twice" in running(rows(RUNNING, 8), rows(RUNNING, 9))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 1e300])
def test_a_value_that_cannot_be_is_left_out_and_all_of_them_withhold(value):
    one = np.where(TIMES_S == 4, value, 8)
    assert running(rows(RUNNING, one)) == 8
    assert "not numbers that there can be" in running(rows(RUNNING, value))


def test_a_share_above_one_is_none():
    assert "not numbers" in running(rows(KV, 40.0), quantity="kv_use")


def test_a_replica_that_vanishes_makes_no_smaller_sum():
    half = rows(RUNNING, 2, dp_rank="1").iloc[:5]
    assert running(rows(RUNNING, 8, dp_rank="0"), half) == 10


def test_the_underscore_in_place_of_the_colon_is_the_same_engine():
    found = metrics(*ranks("sglang_num_running_reqs", [8, 8]), rows("sglang_generation_tokens_total", 10 * TIMES_S))
    assert found.engine.name == "SGLang"
    assert found.block_means("running", EDGES_NS) == [8]
    assert found.rise("generated", S, 9 * S)[0] == 80


def test_both_spellings_on_one_page_are_counted_once():
    found = metrics(rows(RUNNING, 8), rows("sglang_num_running_reqs", 8), rows(KV, 0.5))
    assert found.block_means("running", EDGES_NS) == [8]


def test_counters_of_ranks_count_once_and_of_replicas_add_up():
    copies = metrics(*ranks(GENERATED, [10 * TIMES_S] * 4))
    assert copies.rise("generated", 0, 9 * S)[0] == 90
    replicas = metrics(*ranks(GENERATED, [10 * TIMES_S] * 4, "engine"))
    assert replicas.rise("generated", 0, 9 * S)[0] == 360


def test_a_restart_of_one_replica_of_two_is_seen_though_the_sum_grows():
    fell = np.where(TIMES_S < 5, 10 * TIMES_S, TIMES_S)
    found = metrics(rows(GENERATED, 1000 * TIMES_S, engine="0"), rows(GENERATED, fell, engine="1"))
    assert found.restarted(0, 9 * S)
    assert found.rise("generated", 0, 9 * S) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -5])
def test_a_counter_with_a_value_that_cannot_be_is_read_past_it(value):
    found = metrics(rows(GENERATED, np.where(TIMES_S == 4, value, 10 * TIMES_S)))
    assert found.rise("generated", 0, 9 * S)[0] == 90
    assert metrics(rows(GENERATED, value)).rise("generated", 0, 9 * S) is None


def cell(*parts, model="m"):
    table = {"request_id": [0], "sent_ns": [2 * S], "prompt_tokens": [64], "completion_tokens": [32]}
    requests = pd.DataFrame({**table, "cached_tokens": [0], "finish_reason": ["length"], "status": ["ok"]})
    span = CellSpan(S, 8 * S, None)
    return compare_cell(requests, None, metrics(*parts, model=model), span, 0.02)


def both(generated, prompt, **labels):
    done = (TIMES_S > 4).astype(float)
    return [rows(GENERATED, generated * done, **labels), rows(PROMPT, prompt * done, **labels)]


def test_a_cell_is_compared_with_the_counters_of_its_model():
    idle = [rows(GENERATED, 900, model_name="other"), rows(PROMPT, 5000, model_name="other")]
    found, reasons = cell(*both(32, 64, model_name="m"), *idle)
    assert (found.tokens.generated.server, found.tokens.prompt.server, reasons) == (32, 64, [])


def test_work_for_another_model_is_said():
    found, reasons = cell(*both(32, 64, model_name="m"), *both(500, 0, model_name="other"))
    assert (found.tokens.generated.server, [why.code for why in reasons]) == (32, ["other_models"])
    assert "500 generated tokens of other models" in reasons[0].detail


def test_counters_that_make_no_number_are_not_compared():
    found, reasons = cell(*both(32, 64, model_name="a"), *both(32, 64, model_name="b"))
    assert found.tokens is None
    assert "several models" in found.why
    assert reasons == []


def histogram(bounds=("0.5", "+Inf"), scale=1.0, **labels):
    name = "vllm:request_queue_time_seconds"
    buckets = [rows(f"{name}_bucket", scale * TIMES_S, le=bound, **labels) for bound in bounds]
    return [*buckets, rows(f"{name}_count", scale * TIMES_S, **labels), rows(f"{name}_sum", TIMES_S / 4, **labels)]


def queue(*parts):
    return queue_times(metrics(*parts), 0, 9 * S, [], [])


def codes(figures):
    return {why.code for figure in figures.values() for why in figure.reasons}


def test_a_histogram_of_ranks_is_counted_once_and_of_replicas_added_up():
    found = metrics(*histogram(tp_rank="0"), *histogram(tp_rank="1")).histogram("queue_time", 0, 9 * S)
    assert (found.count, found.cumulated.tolist()) == (9, [9, 9])
    found = metrics(*histogram(engine="0"), *histogram(engine="1")).histogram("queue_time", 0, 9 * S)
    assert (found.count, found.cumulated.tolist()) == (18, [18, 18])


def test_a_histogram_of_another_model_is_left_out_even_with_other_buckets():
    found = metrics(*histogram(model_name="m"), *histogram(("7", "+Inf"), model_name="o")).histogram(
        "queue_time", 0, 9 * S
    )
    assert found.bounds.tolist() == [0.5, np.inf]
    assert found.count == 9


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([*histogram(tenant="a"), *histogram(tenant="b")], "metrics_unclear"),
        (histogram(("0.5", "x")), "metrics_unclear"),
        (histogram(scale=-1.0), "metrics_unclear"),
        ([*histogram(), rows(GENERATED, np.where(TIMES_S < 5, 100, 1))], "server_restarted"),
        ([*histogram()[:-1], rows("vllm:request_queue_time_seconds_sum", np.nan)], "metrics_unclear"),
    ],
)
def test_a_histogram_that_cannot_be_trusted_gives_no_figure(parts, code):
    figures = queue(*parts)
    assert {figure.value for figure in figures.values()} == {None}
    assert codes(figures) == {code}


def test_no_series_and_one_without_labels_are_groups():
    assert group_series([]).groups == ()
    assert group_series([{}]).groups == ((0,),)
