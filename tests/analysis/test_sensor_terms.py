"""What a sensor leaves uncertain: limits, how it grows with time, and what only a trapezoid or only a counter has."""

import dataclasses
import math

import numpy as np
import pytest
from made import S, counter_channel, flickering, level, power_channel

from inference_energy.analysis.uncertainty.sensors import edge_term, gain_term, gap_term, offset_term, sampling_term
from inference_energy.config.analysis import Uncertainty

STATED = Uncertainty(gain=0.03, offset_w=2.0)


def test_gain_is_a_share_of_each_device_and_devices_are_independent():
    one, two = gain_term({"a": 1000.0}, STATED), gain_term({"a": 300.0, "b": 400.0}, STATED)
    assert (one.kind, one.u, one.dof) == ("B", pytest.approx(30.0), math.inf)
    assert two.u == pytest.approx(0.03 * 500.0)
    assert gain_term({"a": -1000.0}, STATED).u == pytest.approx(30.0)


def test_offset_grows_with_time_and_with_the_root_of_the_devices():
    assert offset_term(1, 50.0, STATED).u == pytest.approx(100.0)
    assert offset_term(4, 50.0, STATED).u == pytest.approx(200.0)
    assert offset_term(1, 100.0, STATED).u == pytest.approx(200.0)


@pytest.mark.parametrize("duration_s", [10, 40])
def test_a_counter_lacks_up_to_an_update_at_each_edge_however_long_the_window(duration_s):
    channel = counter_channel(level(600.0), 60.0)
    found = edge_term(channel, 5 * S, (5 + duration_s) * S)
    assert found.u == pytest.approx(600.0 * 0.1 * math.sqrt(2 / 12))


def test_rapl_moves_a_hundred_times_as_often():
    rapl = counter_channel(level(600.0), 60.0, source="rapl", domain="cpu_package")
    assert edge_term(rapl, 5 * S, 45 * S).u == pytest.approx(0.6 * math.sqrt(2 / 12), rel=1e-6)


def test_what_was_used_just_before_an_edge_is_what_the_counter_lacks_there():
    step = counter_channel(lambda at_s: np.where(np.asarray(at_s) < 5.0, 100.0, 700.0), 60.0)
    u = edge_term(step, 5 * S, 45 * S).u
    assert u == pytest.approx(math.hypot(10.0, 70.0) / math.sqrt(12), rel=1e-3)


def test_an_edge_between_two_readings_errs_with_the_step_of_power():
    even = counter_channel(level(600.0), 60.0)
    assert edge_term(even, 5 * S + S // 4, 45 * S).u == pytest.approx(edge_term(even, 5 * S, 45 * S).u)
    step = counter_channel(lambda at_s: np.where(np.asarray(at_s) < 5.25, 100.0, 700.0), 60.0)
    between, on_it = (edge_term(step, start_ns, 45 * S).u for start_ns in (5 * S + S // 4, 5 * S))
    true_j = 700.0 * 39.75
    assert abs(step.energy_j(5 * S + S // 4, 45 * S) - true_j) < 2 * between
    assert between > 2 * on_it


def test_power_readings_at_the_edges_leave_nothing_open_and_between_them_little():
    assert edge_term(power_channel(level(600.0), 60.0), 5 * S, 45 * S).u == 0.0
    slope = power_channel(lambda at_s: 100.0 + 10.0 * np.asarray(at_s), 60.0)
    assert 0 < edge_term(slope, 5 * S + 30_000_000, 45 * S).u < 1.0


def test_holes_that_are_bridged_count_by_length_and_spread():
    def holed(hole_s):
        made = power_channel(flickering(400.0, 50.0), 60.0)
        kept = (made.times_ns < 20 * S) | (made.times_ns > (20 + hole_s) * S)
        return dataclasses.replace(made, times_ns=made.times_ns[kept], power_w=made.power_w[kept])

    short, long = (gap_term(holed(hole_s), 5 * S, 45 * S, 0.3).u for hole_s in (0.5, 2.0))
    spread_w = 50 / math.sqrt(2)
    assert short == pytest.approx(spread_w * 0.6 / math.sqrt(3), rel=0.2)
    assert 2.5 < long / short < 4.5
    assert gap_term(holed(0.1), 5 * S, 45 * S, 0.3).u == 0.0


def test_a_counter_has_neither_holes_nor_sampling():
    channel = counter_channel(flickering(400.0, 50.0), 60.0, step_s=2.0)
    assert gap_term(channel, 5 * S, 45 * S, 0.3).u == 0.0
    assert sampling_term(channel, 5 * S, 45 * S).u == 0.0


def test_sampling_grows_with_the_root_of_the_time_and_holds_the_error():
    random = np.random.default_rng(4)

    def noisy(duration_s):
        return power_channel(lambda at_s: 400 + 30 * random.standard_normal(len(at_s)), duration_s)

    short, long = (sampling_term(noisy(t), 0, t * S) for t in (100, 400))
    assert short.kind == "A"
    assert short.dof > 900
    assert long.u / short.u == pytest.approx(2.0, rel=0.15)
    errors = [noisy(50).energy_j(0, 50 * S) - 20_000.0 for _ in range(200)]
    assert np.std(errors) == pytest.approx(sampling_term(noisy(50), 0, 50 * S).u, rel=0.25)
    assert sampling_term(power_channel(level(400.0), 0.1), 0, S // 10).u == 0.0
