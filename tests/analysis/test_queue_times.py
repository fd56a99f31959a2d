"""Queue times from the server's histogram: the mean is exact, percentiles are interpolated, or not given."""

import numpy as np
import pandas as pd
import pytest

from inference_energy.analysis.server_metrics import Histogram, ServerMetrics, interpolated, queue_figures

S = 1_000_000_000
NAME = "vllm:request_queue_time_seconds"
BOUNDS = (0.1, 0.5, 2.0, np.inf)


def histogram(cumulated, total=50.0):
    return Histogram(np.array(BOUNDS), np.array(cumulated, dtype=float), total, float(cumulated[-1]))


def test_percentiles_lie_evenly_in_their_bucket():
    found = histogram([20, 60, 100, 100])
    assert interpolated(found, 0.5) == (pytest.approx(0.1 + 0.4 * 30 / 40), 0.1, 0.5)
    assert interpolated(found, 0.9) == (pytest.approx(0.5 + 1.5 * 30 / 40), 0.5, 2.0)


def test_figures_carry_their_bucket_or_say_why_they_are_not_given():
    figures = queue_figures(histogram([60, 70, 98, 100]), [], [])
    assert figures["queue_mean_s"].value == 0.5
    low = figures["queue_p50_s"]
    assert (low.value, [r.code for r in low.reasons]) == (None, ["wide_bucket"])
    assert "at most 0.1 s" in low.reasons[0].detail
    middle = figures["queue_p90_s"]
    assert middle.interval_95 == (0.5, 2.0)
    assert [r.code for r in middle.reasons] == ["interpolated"]
    assert "above 2 s" in figures["queue_p99_s"].reasons[0].detail
    assert {figure.boundary for figure in figures.values()} == {"server"}


def test_nothing_is_made_up():
    assert queue_figures(None, [], []) == {}
    empty = queue_figures(histogram([0, 0, 0, 0]), [], [])
    assert {tuple(r.code for r in figure.reasons) for figure in empty.values()} == {("no_requests",)}


def table(rows):
    return pd.DataFrame(
        [(round(at * S), name, labels, value) for at, name, labels, value in rows],
        columns=["timestamp_ns", "name", "labels", "value"],
    )


def test_buckets_that_did_not_change_have_no_row_and_still_count():
    """Two engines; a bucket's row holds until its next."""
    rows = [(at, f"{NAME}_count", "{}", value) for at, value in ((0, 5), (1, 8), (2, 11), (3, 11))]
    rows += [(at, f"{NAME}_sum", "{}", value) for at, value in ((0, 1.0), (1, 2.0), (2, 4.0), (3, 4.0))]
    for engine, changes in (("0", ((0, 3), (2, 6))), ("1", ((0, 2), (1, 5)))):
        for bound in ("0.5", "+Inf"):
            labels = f'{{"engine": "{engine}", "le": "{bound}"}}'
            rows += [(at, f"{NAME}_bucket", labels, value) for at, value in changes]
    found = ServerMetrics(table(rows)).histogram("queue_time", 0, 3 * S)
    assert (found.count, found.total) == (6, 3.0)
    assert found.bounds.tolist() == [0.5, np.inf]
    assert found.cumulated.tolist() == [6, 6]
    later = ServerMetrics(table(rows)).histogram("queue_time", S, 3 * S)
    assert (later.count, later.cumulated.tolist()) == (3, [3, 3])
    assert ServerMetrics(table(rows)).histogram("ttft", 0, 3 * S) is None
