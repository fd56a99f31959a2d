"""The steadiness test: trends are found, noise is not one."""

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from inference_energy.analysis.steadiness import block_edges, geweke, judge, mser5, requests_in_flight, trend
from inference_energy.config.analysis import Steadiness

S = 1_000_000_000


def test_a_rise_is_measured_over_the_whole_window():
    found = trend([100.0, 110.0, 120.0, 130.0, 140.0, 150.0], 0.1, 0.05)
    assert found.change_share == pytest.approx(60 / 125)
    assert found.p_value < 0.05
    assert found.exceeded


def test_a_fall_counts_like_a_rise():
    assert trend([150.0, 140.0, 130.0, 120.0, 110.0, 100.0], 0.1, 0.05).exceeded


def test_a_small_trend_is_steady_however_significant():
    found = trend([100.0, 100.1, 100.2, 100.3, 100.4, 100.5], 0.1, 0.05)
    assert found.p_value < 0.05
    assert not found.exceeded


def test_noise_is_steady():
    rng = np.random.default_rng(0)
    exceeded = [trend((100 + 30 * rng.standard_normal(6)).tolist(), 0.1, 0.05).exceeded for _ in range(200)]
    assert sum(exceeded) / 200 < 0.10


@pytest.mark.parametrize("level", [0.0, 7.0])
def test_a_constant_has_no_trend(level):
    found = trend([level] * 6, 0.1, 0.05)
    assert (found.change_share, found.p_value, found.exceeded) == (0.0, 1.0, False)


def test_each_series_has_its_own_limit():
    rising = [0.82, 0.88, 0.94, 1.0, 1.06, 1.12, 1.18]  # 42 % over the window
    series = {"power_w": rising, "output_tokens_per_s": [1.0] * 7, "running_requests": None}
    assert judge(series, 7, Steadiness()).steady is False
    series = {"power_w": None, "output_tokens_per_s": [1.0] * 7, "running_requests": rising}
    verdict = judge(series, 7, Steadiness())
    assert verdict.steady is True
    assert set(verdict.trends) == {"output_tokens_per_s", "running_requests"}


def test_a_kv_cache_that_fills_up_is_not_steady():
    """As contexts of a constant batch grow longer: nothing else need show it."""
    filling = [0.2, 0.25, 0.3, 0.36, 0.4, 0.45, 0.5]
    verdict = judge({"running_requests": [20.0] * 7, "kv_cache_use": filling}, 7, Steadiness())
    assert verdict.steady is False
    assert [name for name, one in verdict.trends.items() if one.exceeded] == ["kv_cache_use"]


def test_too_few_blocks_are_not_judged():
    verdict = judge({"power_w": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}, 6, Steadiness())
    assert (verdict.judged, verdict.steady) == (False, None)
    assert "needs 7" in verdict.why_not_judged


@pytest.mark.parametrize(("blocks", "scatters", "found"), [(7, 8, 0.55), (29, 3, 0.92)])
def test_its_power_is_what_its_docstring_says(blocks, scatters, found):
    rng = np.random.default_rng(3)
    rise = (np.arange(blocks) + 0.5) / blocks * scatters
    series = [(1000 + rise + rng.standard_normal(blocks)).tolist() for _ in range(400)]
    share = np.mean([6 * trend(means, 1e-9, 0.05).p_value < 0.05 for means in series])
    assert share == pytest.approx(found, abs=0.08)


def test_seven_blocks_find_a_trend_that_is_not_strict():
    assert trend([100.0, 110.0, 105.0, 120.0, 130.0, 125.0, 140.0], 0.1, 0.05).exceeded


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
    assert verdict.steady is False
    even = pd.DataFrame({"sent_ns": sent, "end_ns": sent + second_ns}).astype("Int64")
    assert requests_in_flight(even, blocks)[1:] == pytest.approx([10.0] * 6, rel=0.02)


def noise(random, count, phi=0.5):
    """AR(1) with a standard deviation of one."""
    return lfilter([1.0], [1.0, -phi], random.standard_normal(count + 100))[100:] * np.sqrt(1 - phi**2)


@pytest.mark.parametrize("count", [75, 300])
@pytest.mark.parametrize("share", [0.15, -0.15])
def test_geweke_finds_another_level_in_the_first_fifth(count, share):
    random = np.random.default_rng(5)
    found = []
    for _ in range(50):
        bins = 600 + 15 * noise(random, count)
        bins[: count // 5] += 600 * share
        found.append(geweke(bins, 0.10, 0.05).p_value)
    # Six tests share the 5 %, so each has 0.8 %.
    assert np.mean(np.array(found) < 0.05 / 6) > 0.9
    assert geweke(bins, 0.10, 0.05).difference_share == pytest.approx(share, abs=0.03)
    assert geweke(bins, 0.20, 0.05).exceeded is False  # within the limit, however significant


def test_a_level_that_comes_back_is_no_trend_and_found_all_the_same():
    bins = 600 + 5 * noise(np.random.default_rng(6), 140)
    bins[:28] += 200
    blocks = bins.reshape(14, 10).mean(axis=1).tolist()
    verdict = judge({"power_w": blocks}, 14, Steadiness(), {"power_w": bins})
    assert not verdict.trends["power_w"].exceeded
    assert verdict.stationarity["power_w"].exceeded
    assert verdict.steady is False


@pytest.mark.parametrize("bins", [np.zeros(80), np.full(80, 310.0)])
def test_a_constant_is_stationary(bins):
    assert geweke(bins, 0.1, 0.05).exceeded is False


def test_a_step_before_a_constant_is_not_stationary():
    found = geweke(np.r_[np.full(16, 400.0), np.full(64, 300.0)], 0.1, 0.05)
    assert found.exceeded
    assert found.p_value == 0.0


@pytest.mark.parametrize("blocks", [7, 30])
def test_steady_series_are_rarely_called_unsteady(blocks):
    """Five series as a served load has them, tested seven times; at most 7 % of 300 windows are lost."""
    random = np.random.default_rng(11)
    lost = 0
    for _ in range(300):
        power = 600 + 60 * noise(random, 10 * blocks, 0.6)
        tokens = np.maximum(2000 + 700 * noise(random, 10 * blocks, 0.6), 0)
        running, flying = (20 + 5 * noise(random, blocks, 0.2) for _ in range(2))
        series = {
            "power_w": power.reshape(blocks, 10).mean(axis=1).tolist(),
            "output_tokens_per_s": tokens.reshape(blocks, 10).mean(axis=1).tolist(),
            "running_requests": running.tolist(),
            "requests_in_flight": flying.tolist(),
            "kv_cache_use": (0.2 + 0.04 * noise(random, blocks, 0.2)).tolist(),
        }
        bins = {"power_w": power, "output_tokens_per_s": tokens}
        lost += not judge(series, blocks, Steadiness(), bins).steady
    assert lost / 300 < 0.07


def test_p_values_are_those_of_all_tests_together():
    rising = [100.0, 110.0, 105.0, 120.0, 130.0, 125.0, 140.0]
    alone = judge({"power_w": rising}, 7, Steadiness())
    assert alone.steady is False
    among = judge({"power_w": rising, "output_tokens_per_s": [1.0] * 7, "running_requests": [1.0] * 7}, 7, Steadiness())
    assert among.trends["power_w"].p_value == pytest.approx(3 * alone.trends["power_w"].p_value)
    assert among.trends["output_tokens_per_s"].p_value == 1.0


@pytest.mark.parametrize("settles_s", [15, 30, 45])
def test_mser_cuts_off_a_ramp_and_seldom_much_more(settles_s):
    cuts = []
    for seed in range(60):
        bins = 600 + 10 * noise(np.random.default_rng(seed), 200)
        bins[:settles_s] -= np.linspace(300, 0, settles_s)
        cuts.append(mser5(bins))
    known = [cut for cut in cuts if cut is not None]
    assert len(known) > 0.9 * len(cuts)
    assert min(known) >= settles_s - 10
    assert np.median(known) <= settles_s + 5


def test_mser_cuts_nothing_off_what_is_settled_and_gives_up_where_nothing_settles():
    assert mser5(np.full(100, 300.0)) == 0
    assert mser5(np.r_[np.linspace(1000, 300, 80), np.full(20, 300.0)]) is None
    assert mser5(np.linspace(1000, 300, 100)) is None
    assert mser5(np.arange(45.0)) is None  # nine batches say nothing
