"""The server's counters over a window: interpolation, what it may be off by, and the comparison."""

import numpy as np
import pandas as pd
import pytest

from inference_energy.analysis.server_metrics import ServerMetrics
from inference_energy.analysis.token_reconciliation import reconcile_window
from inference_energy.contracts.documents.windows import WindowCounts
from inference_energy.contracts.reason_codes import CODES

S = 1_000_000_000
GENERATED, PROMPT, RUNNING = "vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:num_requests_running"


def counter(name, values, period_s=1.0, labels="{}"):
    times = (np.arange(len(values)) * period_s * S).astype(np.int64)
    return pd.DataFrame({"timestamp_ns": times, "name": name, "labels": labels, "value": np.array(values, dtype=float)})


def counted(generated, prompt):
    """The client's counts of a window."""
    whole = dict.fromkeys(("scheduled", "started", "finished", "failed", "aborted", "without_usage"), 0)
    return WindowCounts(
        output_tokens=generated,
        prompt_tokens=prompt,
        cached_tokens=0,
        cached_tokens_known=True,
        engine_steps=None,
        **whole,
    )


def test_a_counter_is_interpolated_at_the_edges_and_may_be_off_by_its_steps():
    metrics = counter(GENERATED, [0, 100, 200, 300, 400])
    rise, allowance = ServerMetrics(metrics).rise("generated", int(0.5 * S), int(3.25 * S))
    assert rise == pytest.approx(275)
    assert allowance == pytest.approx(50 + 75)


def test_edges_on_scrapes_leave_no_allowance():
    assert ServerMetrics(counter(GENERATED, [0, 100, 200, 300])).rise("generated", 0, 3 * S) == (300, 0)


def test_engines_are_summed():
    both = pd.concat([counter(GENERATED, [0, 10, 20], labels=f'{{"engine":"{n}"}}') for n in (0, 1)])
    assert ServerMetrics(both).rise("generated", 0, 2 * S) == (40, 0)


@pytest.mark.parametrize(("start_s", "end_s"), [(-1, 2), (0, 3.5)])
def test_scrapes_must_cover_the_window(start_s, end_s):
    metrics = ServerMetrics(counter(GENERATED, [0, 10, 20, 30]))
    assert metrics.rise("generated", int(start_s * S), int(end_s * S)) is None
    assert metrics.rise("prompt", 0, 2 * S) is None
    assert metrics.rise("steps", 0, 2 * S) is None


def test_a_counter_that_began_anew_has_no_rise_over_that_time():
    metrics = ServerMetrics(counter(GENERATED, [100, 200, 10, 110, 210]))
    assert metrics.rise("generated", 0, 3 * S) is None
    assert metrics.rise("generated", 2 * S, 4 * S) == (200, 0)


def test_sglangs_names_stand_for_the_same():
    metrics = ServerMetrics(counter("sglang:generation_tokens_total", [0, 100, 200]))
    assert metrics.engine.name == "SGLang"
    assert metrics.rise("generated", 0, 2 * S) == (200, 0)
    assert metrics.rise("steps", 0, 2 * S) is None


@pytest.mark.parametrize(("client", "agrees"), [(1000, True), (1019, True), (981, True), (1021, False), (979, False)])
def test_two_per_cent_are_tolerated_both_ways(client, agrees):
    metrics = pd.concat([counter(GENERATED, [0, 500, 1000]), counter(PROMPT, [0, 50, 100])])
    counts = counted(client, 100)
    table, reasons = reconcile_window(counts, ServerMetrics(metrics), 0, 2 * S, 0.02)
    assert table.generated.agrees is agrees
    assert table.generated.difference == client - 1000
    assert [r.code for r in reasons] == ([] if agrees else ["token_mismatch"])
    assert table.cached is None


def short_window(client):
    """Three seconds with 100 tokens/s, read once a second half-way between: 100 tokens may be amiss."""
    metrics = pd.concat([counter(GENERATED, range(0, 700, 100)), counter(PROMPT, [0] * 7)])
    counts = counted(client, 0)
    return reconcile_window(counts, ServerMetrics(metrics), int(1.5 * S), int(4.5 * S), 0.02)


@pytest.mark.parametrize("client", [300, 305, 330, 406, 194])
def test_over_a_short_window_it_cannot_be_told(client):
    table, reasons = short_window(client)
    assert table.generated.allowance == pytest.approx(100)
    assert table.generated.agrees is None
    (note,) = reasons
    assert note.code == "tokens_unresolved"
    assert "300 may be off by 100" in note.detail
    assert f"count, {client}, is within 2 %" in note.detail
    assert CODES[note.code].effect == "note"


@pytest.mark.parametrize("client", [407, 193])
def test_a_difference_beyond_all_reading_error_still_disagrees(client):
    table, reasons = short_window(client)
    assert table.generated.agrees is False
    assert [r.code for r in reasons] == ["token_mismatch"]


@pytest.mark.parametrize(("client", "agrees"), [(6000, True), (6120, True), (6121, None), (6220, None), (6221, False)])
def test_a_minute_is_long_enough_if_the_counts_lie_within_the_tolerance(client, agrees):
    metrics = pd.concat([counter(GENERATED, range(0, 7000, 100)), counter(PROMPT, [0] * 70)])
    table, _ = reconcile_window(counted(client, 0), ServerMetrics(metrics), int(1.5 * S), int(61.5 * S), 0.02)
    assert table.generated.agrees is agrees


def test_a_jump_at_an_edge_is_not_held_against_the_client():
    """A long prompt is counted at once: its counter says little about the time between two scrapes."""
    metrics = pd.concat([counter(GENERATED, [0, 1, 2, 3]), counter(PROMPT, [0, 2000, 2000, 2000])])
    counts = counted(2, 2000)
    _, reasons = reconcile_window(counts, ServerMetrics(metrics), int(0.5 * S), int(2.5 * S), 0.02)
    assert {r.code for r in reasons} == {"tokens_unresolved"}
    _, reasons = reconcile_window(counted(2, 2500), ServerMetrics(metrics), int(0.5 * S), int(2.5 * S), 0.02)
    assert [r.code for r in reasons] == ["tokens_unresolved", "token_mismatch"]


def test_block_means_of_a_gauge():
    gauge = ServerMetrics(counter(RUNNING, [1, 3, 5, 7]))
    assert gauge.block_means("running", np.array([0, 2 * S, 4 * S])) == [2.0, 6.0]
    assert gauge.block_means("running", np.array([0, 2 * S, 4 * S, 6 * S])) is None
