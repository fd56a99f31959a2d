"""A channel's energy: its parts, the counter before the integral, when readings count, and snapping."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from factories import S, counter_channel, flickering, level, ns, power_channel
from hypothesis import given
from hypothesis import strategies as st

from inference_energy.analysis.power_series import series_from_log
from inference_energy.analysis.sensor_checks import check_channel, counter_ratio
from inference_energy.analysis.windows import Window, align_to_readings, bin_edges
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts.power import SCHEMA

CONFIG = AnalysisConfig()
SWINGING = flickering(400.0, 150.0)
EITHER = {"power": power_channel(SWINGING, 60.0), "counter": counter_channel(SWINGING, 60.0)}


@pytest.mark.parametrize("channel", EITHER.values(), ids=list(EITHER))
@given(st.integers(0, 29 * S), st.integers(S // 2, 30 * S))
def test_the_bins_sum_to_the_window(channel, start_ns, long_ns):
    edges_ns = bin_edges(start_ns, start_ns + long_ns)
    parts_j = channel.energies_j(edges_ns)
    assert len(parts_j) == len(edges_ns) - 1 == max(round(long_ns / S), 1)
    assert parts_j.sum() == pytest.approx(channel.energy_j(start_ns, start_ns + long_ns), rel=1e-9)
    first = channel.energy_j(int(edges_ns[0]), int(edges_ns[1]))
    assert parts_j[0] == pytest.approx(first, rel=1e-9)


def test_the_counter_is_the_energy_and_the_integral_its_check():
    # The power readings show 4 % more than there is.
    channel = dataclasses.replace(EITHER["counter"], power_w=1.04 * EITHER["counter"].power_w)
    true_j = 400.0 * 40
    assert channel.energy_j(10 * S, 50 * S) == pytest.approx(true_j, rel=5e-3)
    assert counter_ratio(channel, "instant", 10 * S, 50 * S) == pytest.approx(1.04, abs=2e-3)
    assert counter_ratio(channel, "average", 10 * S, 50 * S) is None
    assert codes(channel, 10, 50) == []
    more = dataclasses.replace(EITHER["counter"], power_w=1.06 * EITHER["counter"].power_w)
    assert codes(more, 10, 50) == ["counter_mismatch"]


def codes(channel, start_s, end_s):
    found = check_channel(channel, round(start_s * S), round(end_s * S), 0.1, CONFIG)
    return [reason.code for reason in found]


def changed(counter_j):
    """The channel with the counter as a function of (seconds, what it was) says."""
    made = EITHER["counter"]
    at_s = made.counter_times_ns / 1e9
    return dataclasses.replace(made, counter_j=counter_j(at_s, made.counter_j))


@pytest.mark.parametrize("at_s", [10.25, 30.25, 49.75])
def test_a_reset_between_the_readings_that_span_the_window_is_found(at_s):
    """The window's edges lie between readings, so those just outside decide too."""
    reset = changed(lambda t_s, j: np.where(t_s >= at_s, j - 1e6, j))
    assert codes(reset, 10.3, 49.7) == ["counter_reset"]


@pytest.mark.parametrize("at_s", [9.9, 50.2])
def test_a_reset_outside_them_is_not_the_windows(at_s):
    reset = changed(lambda t_s, j: np.where(t_s >= at_s, j - 1e6, j))
    assert codes(reset, 10, 50) == []
    assert reset.energy_j(10 * S, 50 * S) == pytest.approx(EITHER["counter"].energy_j(10 * S, 50 * S), rel=1e-12)


def test_a_counter_that_never_moves_is_no_energy_and_no_check():
    frozen = changed(lambda t_s, j: np.full_like(j, 7e6))
    assert "counter_mismatch" in codes(frozen, 10, 50)
    assert not frozen.uses_counter


@pytest.mark.parametrize(("from_s", "to_s"), [(20, 24), (7, 11), (48.5, 52.5)], ids=["inside", "start", "end"])
def test_a_counter_that_stands_still_for_seconds_is_stuck_also_across_an_edge(from_s, to_s):
    """It then jumps to the right value; across an edge the window would get or lack what came before."""
    stuck = changed(lambda t_s, j: np.where((t_s >= from_s) & (t_s < to_s), np.interp(from_s, t_s, j), j))
    assert "stuck_sensor" in codes(stuck, 10, 50)
    assert codes(stuck, 25, 45) == []


@pytest.mark.parametrize(("watts", "seconds", "found"), [(0.0, 0.1, True), (310.0, 4.0, True), (310.0, 1.5, False)])
def test_power_that_is_zero_once_or_stands_still_for_seconds_is_stuck(watts, seconds, found):
    spoiled = power_channel(lambda t: np.where((t >= 20) & (t < 20 + seconds), watts, SWINGING(t)), 60.0)
    assert (codes(spoiled, 10, 50) == ["stuck_sensor"]) is found


def test_a_source_of_whole_watts_may_repeat_itself():
    def whole(t):
        return np.where((t >= 20) & (t < 40), 310.0, np.round(SWINGING(t)))

    assert codes(power_channel(whole, 60.0, source="ipmi", domain="node"), 5, 55) == []
    for_ever = power_channel(level(310.0), 90.0, source="ipmi", domain="node")
    assert codes(for_ever, 5, 85) == ["stuck_sensor"]


def rows(source, power_name, at_s, power_w, counter_j=None):
    table = {"timestamp_ns": ns(at_s), f"power_{power_name}_w": power_w}
    if counter_j is not None:
        table["energy_counter_j"] = counter_j
    return pd.DataFrame(table).assign(source=source, device="d", domain="gpu").reindex(columns=SCHEMA.names)


def read(frame, grade="sampled"):
    (found,) = series_from_log(frame, [{"name": frame["source"].iloc[0], "grade": grade}], "average")
    return found


def boxcar(at_s, step_s=5.0, low_w=100.0, high_w=700.0):
    """The average over the last second of a step."""
    return low_w + (high_w - low_w) * np.clip(at_s - step_s, 0.0, 1.0)


@pytest.mark.parametrize(("source", "earlier"), [("nvml", True), ("nvidia-smi", True), ("redfish", False)])
def test_nvmls_average_counts_for_half_a_second_earlier(source, earlier):
    at_s = np.arange(0.0, 30.01, 0.1)
    channel = read(rows(source, "average", at_s, boxcar(at_s)))
    true_j = 700.0 * 15.0
    # From the step on, the trapezoid of a boxcar lacks half a second of it.
    lacking_j = 0.0 if earlier else 0.5 * 600.0
    true_j -= 0.0 if not earlier else 600.0 * 0.125  # half of the ramp lies before the step
    assert channel.energy_j(5 * S, 20 * S) == pytest.approx(true_j - lacking_j, abs=1.0)
    assert channel.energy_j(3 * S, 20 * S) == pytest.approx(700 * 15.0 + 200.0 - lacking_j, abs=1.0)
    assert channel.reading_delay_s == (0.5 if earlier else 0.0)


def test_a_counter_in_the_same_row_is_what_power_was_derived_from():
    at_s = np.arange(0.0, 30.01, 0.1)
    rapl = read(rows("rapl", "average", at_s, SWINGING(at_s), 5e4 + 400 * at_s), "counter")
    assert (rapl.reading, rapl.uses_counter, rapl.grade) == (None, True, "counter")


def test_a_counter_of_whole_watt_hours_is_a_check_and_not_the_energy():
    """A plug: both in one row, and 3600 J a step."""
    at_s = np.arange(0.0, 300.01, 1.0)
    whole_j = np.floor(400 * at_s / 3600) * 3600
    plug = read(rows("smart-plug", "instant", at_s, SWINGING(at_s), whole_j), "metered")
    assert (plug.reading, plug.uses_counter, plug.grade) == ("instant", False, "metered")
    assert plug.energy_j(20 * S, 280 * S) == pytest.approx(400 * 260, rel=0.01)
    assert [r.code for r in check_channel(plug, 20 * S, 280 * S, 1.0, CONFIG)] == ["other_reading"]
    wrong = dataclasses.replace(plug, power_w=1.2 * plug.power_w)
    assert "counter_mismatch" in [r.code for r in check_channel(wrong, 20 * S, 280 * S, 1.0, CONFIG)]


READINGS = ns(np.arange(0.2, 100.0, 0.5))


def test_a_window_is_snapped_to_the_readings_in_it():
    found = align_to_readings(Window("w", 10 * S, 50 * S), READINGS)
    assert (found.start_ns, found.end_ns) == (round(10.2 * S), round(49.7 * S))
    on_them = Window("w", round(10.2 * S), round(49.7 * S))
    assert align_to_readings(on_them, READINGS) == on_them


@pytest.mark.parametrize("kept", [lambda r: r[:0], lambda r: r[:1], lambda r: r[r > 14 * S], lambda r: r[r < 46 * S]])
def test_it_stays_as_it_is_where_that_would_cut_off_much(kept):
    window = Window("w", 10 * S, 50 * S)
    assert align_to_readings(window, kept(READINGS)) == window


def test_a_counters_edges_are_where_it_has_moved():
    stuck = changed(lambda t_s, j: np.where((t_s >= 9) & (t_s < 11.5), np.interp(9, t_s, j), j))
    assert codes(stuck, 10, 50) == []  # 2.5 s are not stuck yet
    window = align_to_readings(Window("w", 10 * S, 50 * S), stuck.counter_moved_ns)
    assert window.start_ns == round(11.5 * S)
    sound = EITHER["counter"].energy_j(window.start_ns, window.end_ns)
    assert stuck.energy_j(window.start_ns, window.end_ns) == pytest.approx(sound, rel=1e-12)
