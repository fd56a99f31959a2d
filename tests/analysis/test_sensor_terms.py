"""What a sensor leaves uncertain: limits, how it grows with time, and what only a trapezoid or only a counter has."""

import dataclasses
import math

import numpy as np
import pytest
from factories import S, counter_channel, flickering, level, power_channel

from inference_energy.analysis.uncertainty.terms import edge_term, gain_term, gap_term, offset_term, sampling_term
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


def alone(power_w, duration_s=60.0, **changed):
    """A counter without power readings beside it, so that nothing shows what it lacks at the edges."""
    return counter_channel(power_w, duration_s, reading=None, **changed)


@pytest.mark.parametrize("duration_s", [10, 40])
def test_a_counter_lacks_up_to_an_update_at_each_edge_however_long_the_window(duration_s):
    found = edge_term(alone(level(600.0)), 5 * S, (5 + duration_s) * S)
    assert (found.kind, found.u) == ("B", pytest.approx(600.0 * 0.1 * math.sqrt(2 / 12)))


def test_rapl_moves_a_hundred_times_as_often():
    rapl = alone(level(600.0), source="rapl", domain="cpu_package")
    assert edge_term(rapl, 5 * S, 45 * S).u == pytest.approx(0.6 * math.sqrt(2 / 12), rel=1e-6)


def test_a_slow_call_leaves_open_when_the_counter_was_read():
    quick, slow = (edge_term(alone(level(600.0), counter_call_s=call_s), 5 * S, 45 * S).u for call_s in (0.0, 0.05))
    assert slow == pytest.approx(math.hypot(quick, 600.0 * 0.05 * math.sqrt(2 / 12)))


@pytest.mark.parametrize("make", [alone, lambda power_w: power_channel(power_w, 60.0)])
def test_at_the_ends_of_a_log_power_is_taken_from_the_side_where_it_is_known(make):
    made = make(level(600.0))
    whole, inside = edge_term(made, 0, 60 * S).u, edge_term(made, 5 * S, 45 * S).u
    assert whole == pytest.approx(inside)


def test_what_was_used_just_before_an_edge_is_what_the_counter_lacks_there():
    """From 100 to 700 W it lacks 5 J at the start and 35 J at the end on average, which do not cancel."""
    u = edge_term(alone(lambda at_s: np.where(np.asarray(at_s) < 5.0, 100.0, 700.0)), 5 * S, 45 * S).u
    lacks_j = np.random.default_rng(2).uniform(size=(2, 100_000)) * [[10.0], [70.0]]
    assert u == pytest.approx(float(np.sqrt(np.mean((lacks_j[1] - lacks_j[0]) ** 2))), rel=0.01)


def test_an_edge_between_two_readings_errs_with_the_step_of_power():
    even = alone(level(600.0))
    assert edge_term(even, 5 * S + S // 4, 45 * S).u == pytest.approx(edge_term(even, 5 * S, 45 * S).u)
    step = alone(lambda at_s: np.where(np.asarray(at_s) < 5.25, 100.0, 700.0))
    between, on_it = (edge_term(step, start_ns, 45 * S).u for start_ns in (5 * S + S // 4, 5 * S))
    true_j = 700.0 * 39.75
    assert abs(step.energy_j(5 * S + S // 4, 45 * S) - true_j) < 2 * between
    assert between > 1.5 * on_it


def lacking(ages_s, power_w=600.0, noise_w=0.5):
    """A counter read every half second that lacks at each reading what was used in the last so many seconds.

    Readings of power stand beside it as NVML's do, with noise.
    """
    random = np.random.default_rng(5)
    made = counter_channel(level(power_w), 60.0)
    noisy_w = made.power_w + noise_w * random.standard_normal(len(made.power_w))
    return dataclasses.replace(made, counter_j=made.counter_j - power_w * np.asarray(ages_s), power_w=noisy_w)


READINGS = np.arange(121)
BOUND_J = 600.0 * 0.1 * math.sqrt(2 / 12)


def test_readings_in_step_with_the_updates_leave_little_open():
    kept = edge_term(lacking(0.04 + 0.001 * np.random.default_rng(1).standard_normal(121)), 5 * S, 45 * S)
    assert kept.kind == "A"
    assert kept.dof == 79
    assert 0.5 < kept.u < 2.0


def test_readings_in_no_step_with_the_updates_leave_the_bound_open():
    random = [lacking(np.random.default_rng(seed).uniform(0, 0.1, 121)) for seed in range(40)]
    terms = [edge_term(channel, 5 * S, 45 * S) for channel in random]
    assert all(term.u < 1.15 * BOUND_J for term in terms), "power before an edge is that of the counter itself"
    assert np.mean([term.u for term in terms]) > 0.95 * BOUND_J


@pytest.mark.parametrize(
    "ages_s",
    [
        0.09 * READINGS / 120,
        0.09 * (1 - READINGS / 120),
        np.where(READINGS >= 90, 0.09, 0.02),
        np.where(READINGS <= 10, 0.08, 0.01),
    ],
    ids=["drifts up", "drifts down", "jumps at the last reading", "jumps at the first reading"],
)
def test_what_drifts_or_jumps_over_the_window_is_not_taken_for_scatter(ages_s):
    channel = lacking(ages_s)
    error_j = channel.energy_j(5 * S, 45 * S) - 600.0 * 40
    assert abs(error_j) > 30
    assert edge_term(channel, 5 * S, 45 * S).u >= 0.95 * min(abs(error_j) / math.sqrt(3), BOUND_J)


def test_a_poor_integral_or_few_readings_leave_the_bound_open():
    sound = lacking(np.full(121, 0.05))
    assert edge_term(sound, 5 * S, 45 * S).u < 0.1 * BOUND_J
    other_gain = dataclasses.replace(sound, power_w=0.99 * sound.power_w)
    assert edge_term(other_gain, 5 * S, 45 * S).u == pytest.approx(BOUND_J, rel=0.01)
    assert edge_term(sound, 5 * S, 8 * S).u == pytest.approx(BOUND_J, rel=0.01)
    ends_early = dataclasses.replace(sound, times_ns=sound.times_ns[:-200], power_w=sound.power_w[:-200])
    assert edge_term(ends_early, 5 * S, 45 * S).u == pytest.approx(BOUND_J, rel=0.01)


def test_power_readings_leave_nothing_open_where_power_is_the_same_at_both_edges():
    assert edge_term(power_channel(level(600.0), 60.0), 5 * S, 45 * S).u == 0.0
    assert edge_term(power_channel(flickering(600.0), 60.0), 5 * S + 30_000_000, 45 * S).u < 0.1


@pytest.mark.parametrize("held_s", [0.1, 2.0])
def test_power_readings_are_up_to_an_update_old_which_counts_where_power_changes(held_s):
    """Read ten times a second from a meter with a new value every so often; the age at a reading is uniform."""

    def slope(at_s):
        return 100.0 + 10.0 * np.asarray(at_s)

    errors_j, terms_j = [], []
    for phase in np.linspace(0, 1, 20, endpoint=False):
        made = power_channel(lambda at_s, p=phase: slope(held_s * (np.floor(np.asarray(at_s) / held_s - p) + p)), 60.0)
        errors_j.append(made.energy_j(5 * S, 45 * S) - slope(25.0) * 40.0)
        terms_j.append(edge_term(made, 5 * S, 45 * S).u)
    assert np.sqrt(np.mean(np.square(errors_j))) == pytest.approx(np.mean(terms_j), rel=0.25)


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
