"""Latencies: each by its definition, with the schedule's delay inside where it says so."""

import numpy as np
import pandas as pd
import pytest

from inference_energy.analysis.counts import send_lag
from inference_energy.analysis.latency import failed_samples, figure_name, latency_figures, samples
from inference_energy.analysis.token_times import ChunkTimes
from inference_energy.analysis.windows import Window
from inference_energy.contracts.reason_codes import reason

MS = 1_000_000
WINDOW = Window("w", 0, 60_000 * MS)
COLUMNS = ["scheduled_ns", "sent_ns", "first_token_ns", "last_token_ns", "end_ns", "completion_tokens"]


def requests(rows):
    return pd.DataFrame(rows, columns=COLUMNS).astype("Int64")


def alike(count, tokens=11):
    return requests([(0, 20 * MS, 120 * MS, 620 * MS, 621 * MS, tokens)] * count)


def figures(rows, reasons=(), notes=(), no_schedule=(), arrived=None):
    return latency_figures(samples(rows, arrived), WINDOW, reasons, notes, no_schedule)


@pytest.mark.parametrize(
    ("name", "value", "unit"),
    [
        ("ttft_p50_s", 0.100, "s"),
        ("ttft_from_schedule_p50_s", 0.120, "s"),
        ("tpot_p50_s", 0.050, "s/token"),
        ("e2e_p50_s", 0.600, "s"),
        ("e2e_from_schedule_p50_s", 0.620, "s"),
    ],
)
def test_definitions(name, value, unit):
    figure = figures(alike(6))[name]
    assert (figure.value, figure.unit, figure.boundary) == (pytest.approx(value), unit, "client")
    assert figure.interval_95 == pytest.approx((value, value))
    assert figure.reasons == ()


def test_percentiles_are_interpolated_and_lie_in_their_intervals():
    order = np.random.default_rng(1).permutation(4000)
    many = requests([(0, at * 15 * MS, (at * 15 + n) * MS, (at * 15 + n) * MS, None, 1) for at, n in enumerate(order)])
    found = figures(many)
    names = [figure_name("ttft", p) for p in (50, 90, 95, 99, 99.9)]
    assert names[-1] == "ttft_p99_9_s"
    expected = np.percentile(np.arange(4000), [50, 90, 95, 99, 99.9]) / 1000
    assert [found[name].value for name in names] == pytest.approx(expected)
    for name in names:
        low, high = found[name].interval_95
        assert low < found[name].value < high


def test_one_token_has_no_time_between_tokens():
    found = figures(alike(6, tokens=1))
    assert [r.code for r in found["tpot_p50_s"].reasons] == ["no_requests"]
    assert found["e2e_p50_s"].valid


def test_too_few_requests_are_said_with_how_many_it_takes():
    figure = figures(alike(30))["ttft_p90_s"]
    assert (figure.value, figure.reasons[0].code) == (None, "few_samples")
    assert "of 30 values" in figure.reasons[0].detail
    assert "needs 36" in figure.reasons[0].detail


def test_reasons_invalidate_and_notes_do_not():
    late, trend = reason("client_lag", "Late."), reason("not_steady", "Rising.")
    assert figures(alike(6), [late])["e2e_p50_s"].value is None
    noted = figures(alike(6), (), [trend])["e2e_p50_s"]
    assert noted.valid
    assert noted.reasons == (trend,)
    unscheduled = figures(alike(6), (), (), [reason("no_schedule", "Closed.")])
    assert not unscheduled["ttft_from_schedule_p50_s"].valid
    assert unscheduled["ttft_p50_s"].valid


def test_time_between_tokens_comes_from_arrivals_alone():
    assert not [name for name in figures(alike(6)) if name.startswith("itl")]
    times = np.array([0, 30, 60, 160]) * MS
    arrived = ChunkTimes(np.zeros(4, dtype=np.int64), times, np.array([1, 1, 3, 2]))
    sample = samples(alike(1), arrived)["itl"]
    assert sample.values_s.tolist() == pytest.approx([0.03, 0.01, 0.01, 0.01, 0.05, 0.05])
    assert sample.unit == "s/token"


def test_failed_requests_are_apart():
    failed = requests([(0, 10 * MS, 40 * MS, pd.NA, 90 * MS, pd.NA), (0, 10 * MS, pd.NA, pd.NA, 20 * MS, pd.NA)])
    found = failed_samples(failed)
    assert found["failed_ttft"].values_s.tolist() == pytest.approx([0.03])
    assert found["failed_e2e"].values_s.tolist() == pytest.approx([0.08, 0.01])
    assert failed_samples(failed[:0]) == {}
    assert failed_samples(failed.assign(sent_ns=pd.NA)) == {}


def test_lag_is_sent_minus_scheduled():
    lag = send_lag(alike(3))
    assert (lag.p50, lag.p99, lag.max) == pytest.approx((0.02, 0.02, 0.02))
    assert send_lag(requests([(pd.NA, 0, 0, 0, 0, 1)])) is None
