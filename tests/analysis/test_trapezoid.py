"""The integral of power: exact where it must be, and never beyond the readings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_energy.analysis.integration import counter_energy, integrate, shortfall_s
from inference_energy.errors import InputError

ORIGIN_NS = 8_000_000_000_000


@st.composite
def logs(draw):
    """Ascending times over a few seconds, and powers."""
    gaps_ms = draw(st.lists(st.integers(1, 2000), min_size=1, max_size=25))
    times_ns = ORIGIN_NS + np.concatenate(([0], np.cumsum(gaps_ms))) * 1_000_000
    power_w = draw(st.lists(st.floats(0, 1000), min_size=len(times_ns), max_size=len(times_ns)))
    return times_ns.astype(np.int64), np.array(power_w)


def inside(log, *shares):
    """Times within the log, at these shares of its length."""
    times_ns = log[0]
    return [int(times_ns[0] + share * (times_ns[-1] - times_ns[0])) for share in sorted(shares)]


share = st.floats(0, 1)


@given(logs(), share, share, share)
def test_the_parts_of_a_split_window_add_up(log, a, b, c):
    start, middle, end = inside(log, a, b, c)
    whole = integrate(*log, start, end)
    assert integrate(*log, start, middle) + integrate(*log, middle, end) == pytest.approx(whole, rel=1e-9, abs=1e-6)


@given(logs(), share, share, st.lists(share, max_size=5))
def test_readings_added_on_the_line_change_nothing(log, a, b, extra):
    times_ns, power_w = log
    start, end = inside(log, a, b)
    more_ns = np.unique(np.concatenate((times_ns, np.array(inside(log, *extra), dtype=np.int64))))
    more_w = np.interp((more_ns - ORIGIN_NS).astype(float), (times_ns - ORIGIN_NS).astype(float), power_w)
    assert integrate(more_ns, more_w, start, end) == pytest.approx(integrate(*log, start, end), rel=1e-9, abs=1e-6)


@given(logs(), share, share, st.floats(0, 50))
def test_energy_scales_with_power(log, a, b, factor):
    start, end = inside(log, a, b)
    scaled = integrate(log[0], log[1] * factor, start, end)
    assert scaled == pytest.approx(factor * integrate(*log, start, end), rel=1e-9, abs=1e-6)


@given(logs(), share, share, st.floats(0, 1000))
def test_constant_power_is_power_times_time(log, a, b, level_w):
    start, end = inside(log, a, b)
    energy_j = integrate(log[0], np.full(len(log[0]), level_w), start, end)
    assert energy_j == pytest.approx(level_w * (end - start) / 1e9, rel=1e-9, abs=1e-9)


@given(logs(), share, share, st.floats(0, 100), st.floats(0, 500))
def test_linear_power_is_exact(log, a, b, slope_w_per_s, offset_w):
    start, end = inside(log, a, b)
    time_s = (log[0] - ORIGIN_NS) / 1e9
    energy_j = integrate(log[0], offset_w + slope_w_per_s * time_s, start, end)
    from_s, to_s = (start - ORIGIN_NS) / 1e9, (end - ORIGIN_NS) / 1e9
    exact_j = offset_w * (to_s - from_s) + slope_w_per_s * (to_s**2 - from_s**2) / 2
    assert energy_j == pytest.approx(exact_j, rel=1e-9, abs=1e-6)


def test_edges_between_readings_are_interpolated():
    times_ns = np.array([0, 10, 20], dtype=np.int64) * 1_000_000_000
    power_w = np.array([100.0, 200.0, 0.0])
    # 5 s at 150 to 200 W, then 5 s at 200 to 100 W
    assert integrate(times_ns, power_w, 5_000_000_000, 15_000_000_000) == pytest.approx(5 * 175 + 5 * 150)


@pytest.mark.parametrize(("start_s", "end_s", "text"), [(-1, 5, "1.000 s"), (5, 21.5, "1.500 s")])
def test_nothing_is_extrapolated(start_s, end_s, text):
    times_ns = np.array([0, 10, 20], dtype=np.int64) * 1_000_000_000
    window = int(start_s * 1e9), int(end_s * 1e9)
    with pytest.raises(InputError, match=text):
        integrate(times_ns, np.array([1.0, 1.0, 1.0]), *window)
    with pytest.raises(InputError, match="does not cover"):
        counter_energy(times_ns, np.array([1.0, 2.0, 3.0]), *window)


def test_what_is_not_a_log_is_refused():
    ascending, power_w = np.array([0, 1_000], dtype=np.int64), np.array([1.0, 1.0])
    with pytest.raises(InputError, match="empty"):
        integrate(np.zeros(0, dtype=np.int64), np.zeros(0), 0, 1)
    with pytest.raises(ValueError, match="order"):
        integrate(ascending[::-1], power_w, 0, 1_000)
    with pytest.raises(ValueError, match="not numbers"):
        integrate(ascending, np.array([1.0, np.nan]), 0, 1_000)
    with pytest.raises(ValueError, match="ends before"):
        integrate(ascending, power_w, 1_000, 0)


def test_a_counter_gives_its_difference_whatever_it_started_from():
    times_ns = ORIGIN_NS + np.arange(5, dtype=np.int64) * 500_000_000
    counter_j = 3e9 + np.arange(5) * 50.0  # 100 W
    energy_j = counter_energy(times_ns, counter_j, ORIGIN_NS + 250_000_000, ORIGIN_NS + 1_750_000_000)
    assert energy_j == pytest.approx(150.0, abs=1e-6)


def test_shortfall_of_an_empty_log_is_the_whole_window():
    assert shortfall_s(np.zeros(0, dtype=np.int64), 0, 2_000_000_000) == (2.0, 2.0)
