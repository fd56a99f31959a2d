"""The steadiness test: trends are found, noise is not one."""

import numpy as np
import pandas as pd
import pytest

from inference_energy.analysis.steadiness import block_edges, judge, trend
from inference_energy.analysis.steady_load import requests_in_flight
from inference_energy.config.analysis import Steadiness

S = 1_000_000_000


def test_a_rise_is_measured_over_the_whole_window():
    found = trend([100.0, 110.0, 120.0, 130.0, 140.0, 150.0], 0.1, 0.05)
    assert found["change_share"] == pytest.approx(60 / 125)
    assert found["p_value"] < 0.05
    assert found["exceeded"]


def test_a_fall_counts_like_a_rise():
    assert trend([150.0, 140.0, 130.0, 120.0, 110.0, 100.0], 0.1, 0.05)["exceeded"]


def test_a_small_trend_is_steady_however_significant():
    found = trend([100.0, 100.1, 100.2, 100.3, 100.4, 100.5], 0.1, 0.05)
    assert found["p_value"] < 0.05
    assert not found["exceeded"]


def test_noise_is_steady():
    rng = np.random.default_rng(0)
    exceeded = [trend((100 + 30 * rng.standard_normal(6)).tolist(), 0.1, 0.05)["exceeded"] for _ in range(200)]
    assert sum(exceeded) / 200 < 0.10


@pytest.mark.parametrize("level", [0.0, 7.0])
def test_a_constant_has_no_trend(level):
    found = trend([level] * 6, 0.1, 0.05)
    assert (found["change_share"], found["p_value"], found["exceeded"]) == (0.0, 1.0, False)


def test_each_series_has_its_own_limit():
    rising = [0.82, 0.88, 0.94, 1.0, 1.06, 1.12, 1.18]  # 42 % over the window
    series = {"power_w": rising, "output_tokens_per_s": [1.0] * 7, "running_requests": None}
    assert judge(series, 7, Steadiness())["steady"] is False
    series = {"power_w": None, "output_tokens_per_s": [1.0] * 7, "running_requests": rising}
    verdict = judge(series, 7, Steadiness())
    assert verdict["steady"] is True
    assert set(verdict["trends"]) == {"output_tokens_per_s", "running_requests"}


def test_too_few_blocks_are_not_judged():
    verdict = judge({"power_w": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}, 6, Steadiness())
    assert (verdict["judged"], verdict["steady"]) == (False, None)
    assert "needs 7" in verdict["why_not_judged"]


@pytest.mark.parametrize(("blocks", "scatters", "found"), [(7, 4, 0.5), (7, 6, 0.8), (29, 3, 0.95)])
def test_its_power_is_what_its_docstring_says(blocks, scatters, found):
    rng = np.random.default_rng(3)
    rise = (np.arange(blocks) + 0.5) / blocks * scatters
    series = [(1000 + rise + rng.standard_normal(blocks)).tolist() for _ in range(400)]
    share = np.mean([trend(means, 1e-9, 0.05)["exceeded"] for means in series])
    assert share == pytest.approx(found, abs=0.08)


def test_seven_blocks_find_a_trend_that_is_not_strict():
    assert trend([100.0, 110.0, 105.0, 120.0, 130.0, 125.0, 140.0], 0.1, 0.05)["exceeded"]


@pytest.mark.parametrize(("duration_s", "blocks"), [(4, 1), (59.9, 5), (60, 6)])
def test_blocks_fill_the_window_and_are_not_short(duration_s, blocks):
    edges = block_edges(7 * S, 7 * S + int(duration_s * S))
    assert (edges[0], edges[-1], len(edges)) == (7 * S, 7 * S + int(duration_s * S), blocks + 1)


def test_a_growing_queue_shows_in_the_requests_in_flight() -> None:
    """An overloaded server: arrivals at 10/s, ends at 5/s, so the number in flight rises by 5 every second."""
    second_ns = 10**9
    sent = np.arange(700) * second_ns // 10
    ended = np.arange(700) * second_ns // 5
    requests = pd.DataFrame({"sent_ns": sent, "end_ns": ended}).astype("Int64")
    blocks = [(index * 10 * second_ns, (index + 1) * 10 * second_ns) for index in range(7)]
    means = requests_in_flight(requests, blocks)
    assert means == pytest.approx([25 + 50 * index for index in range(7)], rel=0.02)
    verdict = judge({"power_w": [600.0] * 7, "requests_in_flight": means}, 7, Steadiness())
    assert verdict["steady"] is False
    even = pd.DataFrame({"sent_ns": sent, "end_ns": sent + second_ns}).astype("Int64")
    assert requests_in_flight(even, blocks)[1:] == pytest.approx([10.0] * 6, rel=0.02)
