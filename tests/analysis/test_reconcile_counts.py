"""The server's counters over a window: interpolation, what it may be off by, and the comparison."""

import numpy as np
import pandas as pd
import pytest

from inference_energy.analysis.reconcile import GENERATED, PROMPT, block_means, counter_rise, reconcile

S = 1_000_000_000


def counter(name, values, period_s=1.0, labels="{}"):
    times = (np.arange(len(values)) * period_s * S).astype(np.int64)
    return pd.DataFrame({"timestamp_ns": times, "name": name, "labels": labels, "value": np.array(values, dtype=float)})


def test_a_counter_is_interpolated_at_the_edges_and_may_be_off_by_its_steps():
    metrics = counter(GENERATED, [0, 100, 200, 300, 400])
    rise, allowance = counter_rise(metrics, GENERATED, int(0.5 * S), int(3.25 * S))
    assert rise == pytest.approx(275)
    assert allowance == pytest.approx(50 + 75)


def test_edges_on_scrapes_leave_no_allowance():
    assert counter_rise(counter(GENERATED, [0, 100, 200, 300]), GENERATED, 0, 3 * S) == (300, 0)


def test_engines_are_summed():
    both = pd.concat([counter(GENERATED, [0, 10, 20], labels=f'{{"engine":"{n}"}}') for n in (0, 1)])
    assert counter_rise(both, GENERATED, 0, 2 * S) == (40, 0)


@pytest.mark.parametrize(("start_s", "end_s"), [(-1, 2), (0, 3.5)])
def test_scrapes_must_cover_the_window(start_s, end_s):
    metrics = counter(GENERATED, [0, 10, 20, 30])
    assert counter_rise(metrics, GENERATED, int(start_s * S), int(end_s * S)) is None
    assert counter_rise(metrics, PROMPT, 0, 2 * S) is None


@pytest.mark.parametrize(("client", "agrees"), [(1000, True), (1019, True), (981, True), (1021, False), (979, False)])
def test_two_per_cent_are_tolerated_both_ways(client, agrees):
    metrics = pd.concat([counter(GENERATED, [0, 500, 1000]), counter(PROMPT, [0, 50, 100])])
    counts = {"generated": client, "prompt": 100, "cached": 0}
    table, reasons = reconcile(counts, metrics, 0, 2 * S, 0.02)
    assert table["generated"]["agrees"] is agrees
    assert table["generated"]["difference"] == client - 1000
    assert [r.code for r in reasons] == ([] if agrees else ["token_mismatch"])
    assert table["cached"] is None


def test_a_jump_at_an_edge_is_not_held_against_the_client():
    """A long prompt is counted at once: its counter says little about the time between two scrapes."""
    metrics = pd.concat([counter(GENERATED, [0, 1, 2, 3]), counter(PROMPT, [0, 2000, 2000, 2000])])
    counts = {"generated": 2, "prompt": 2000, "cached": 0}
    _, reasons = reconcile(counts, metrics, int(0.5 * S), int(2.5 * S), 0.02)
    assert reasons == []
    _, reasons = reconcile({**counts, "prompt": 2500}, metrics, int(0.5 * S), int(2.5 * S), 0.02)
    assert [r.code for r in reasons] == ["token_mismatch"]


def test_block_means_of_a_gauge():
    gauge = counter("running", [1, 3, 5, 7])
    assert block_means(gauge, "running", np.array([0, 2 * S, 4 * S])) == [2.0, 6.0]
    assert block_means(gauge, "running", np.array([0, 2 * S, 4 * S, 6 * S])) is None
