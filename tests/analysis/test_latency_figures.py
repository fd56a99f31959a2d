"""Latencies: each by its definition, with the schedule's delay inside where it says so."""

import pandas as pd
import pytest

from inference_energy.analysis.latency import lag_s, latency_figures
from inference_energy.analysis.validity import reason

MS = 1_000_000


def requests(rows):
    columns = ["scheduled_ns", "sent_ns", "first_token_ns", "last_token_ns", "completion_tokens"]
    return pd.DataFrame(rows, columns=columns).astype("Int64")


def alike(count, tokens=11):
    return requests([(0, 20 * MS, 120 * MS, 620 * MS, tokens)] * count)


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
    figure = latency_figures(alike(5), [], [])[name]
    assert (figure.value, figure.unit, figure.boundary) == (pytest.approx(value), unit, "client")
    assert figure.reasons == ()


def test_percentiles_are_interpolated():
    many = requests([(0, 0, n * MS, n * MS, 1) for n in range(201)])
    found = latency_figures(many, [], [])
    assert [found[f"ttft_p{p}_s"].value for p in (50, 90, 99)] == pytest.approx([0.100, 0.180, 0.198])
    assert all(not found[f"ttft_p{p}_s"].reasons for p in (50, 90, 99))


def test_one_token_has_no_time_between_tokens():
    found = latency_figures(alike(5, tokens=1), [], [])
    assert found["tpot_p50_s"].value is None
    assert found["e2e_p50_s"].valid


def test_reasons_invalidate_and_notes_do_not():
    late, trend = reason("client_lag", "Late."), reason("not_steady", "Rising.")
    assert latency_figures(alike(5), [late], [])["e2e_p50_s"].value is None
    noted = latency_figures(alike(5), [], [trend])["e2e_p50_s"]
    assert noted.valid
    assert noted.reasons == (trend,)


def test_lag_is_sent_minus_scheduled():
    assert lag_s(alike(3)) == pytest.approx({"p50": 0.02, "p99": 0.02, "max": 0.02})
    assert lag_s(requests([(pd.NA, 0, 0, 0, 1)])) is None
