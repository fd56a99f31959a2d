"""Idle powers: their intervals, what is said of them, and the sensors that refuse them."""

import dataclasses

import numpy as np
import pytest
from factories import S, counter_channel, level, power_channel

from inference_energy.analysis.idle import IdlePhase, idle_power
from inference_energy.analysis.uncertainty.terms import COUNTER_UPDATE_S
from inference_energy.config.analysis import AnalysisConfig

CONFIG = AnalysisConfig.model_validate({"uncertainty": {"gain": 0.03, "offset_w": 1.0}})
PHASE = (2 * S, 32 * S)


def quiet(seed=1, spread_w=0.6):
    random = np.random.default_rng(seed)
    return lambda at_s: 70.0 + spread_w * random.standard_normal(np.shape(at_s))


def asked(channel, phase=PHASE, like=None):
    return idle_power("cold", IdlePhase([channel], phase, ""), [like or channel], 0.1, CONFIG)


def codes(found):
    return [reason.code for reason in found.figure.reasons]


def spoiled(channel, from_s, to_s, watts=None):
    """Power of this many W over a part of the log, or no readings at all."""
    inside = (channel.times_ns >= from_s * S) & (channel.times_ns < to_s * S)
    if watts is None:
        return dataclasses.replace(channel, times_ns=channel.times_ns[~inside], power_w=channel.power_w[~inside])
    return dataclasses.replace(channel, power_w=np.where(inside, watts, channel.power_w))


@pytest.mark.parametrize("make", [power_channel, counter_channel])
def test_an_even_idle_has_a_narrow_interval_and_nothing_to_say(make):
    found = asked(make(quiet(), 40.0))
    assert found.figure.value == pytest.approx(70.0, abs=0.3)
    assert codes(found) == []
    names = {term.name for term in found.figure.budget.terms}
    assert {"sensor gain", "sensor offset", "idle fluctuation"} <= names
    low, high = found.figure.interval_95
    assert high - low == pytest.approx(2 * 1.96 * np.hypot(0.03 * 70, 1.0), rel=0.15)
    assert found.by_channel_w == {"gpu of GPU-0 (nvml)": found.figure.value}
    # Gain and offset are shared with the windows, so they are not among what is the phase's own.
    assert {term.name for term in found.phase_terms} <= {"idle fluctuation", "window edges", "holes"}


def test_its_own_terms_hold_how_much_it_fluctuates():
    spreads = []
    for spread_w in (0.5, 5.0):
        (term,) = [
            t for t in asked(power_channel(quiet(2, spread_w), 40.0)).phase_terms if t.name == "idle fluctuation"
        ]
        assert (term.kind, term.dof) == ("A", pytest.approx(29 / int(term.basis.split()[-2]) - 1))
        spreads.append(term.u)
    assert spreads[1] == pytest.approx(10 * spreads[0], rel=0.05)


def test_a_modelled_idle_has_no_interval():
    found = asked(power_channel(level(40.0), 40.0, grade="modelled", source="modelled", domain="cpu", device="cpu"))
    assert found.figure.value == pytest.approx(40.0)
    assert found.figure.interval_95 is None


def test_outliers_are_named_with_their_second_and_power():
    found = asked(spoiled(power_channel(quiet(), 40.0), 12.5, 13.5, 130.0))
    assert codes(found) == ["idle_outliers"]
    assert found.figure.valid
    assert "median of 69.95 W, but at 10 s (127 W) not" in found.figure.reasons[0].detail


def test_a_trend_is_noted_and_a_small_one_is_not():
    random = np.random.default_rng(3)
    for share, noted in ((0.15, True), (0.02, False)):
        falling = power_channel(
            lambda t, by=share: 70 * (1 + by * (0.5 - (t - 2) / 30)) + 0.2 * random.standard_normal(len(t)), 40.0
        )
        assert ("idle_trend" in codes(asked(falling))) is noted


REFUSED = {
    "zero throughout": ((0, 100, 0.0), "zero or less"),
    "zero for 3 s": ((12, 15, 0.0), "zero or less"),
    "one reading of zero": ((12, 12.05, 0.0), "zero or less"),
    "stuck throughout": ((0, 100, 70.125), "did not change for"),
    "stuck for 10 s": ((12, 22, 70.125), "did not change for"),
    "a hole of 8 s": ((12, 20, None), "hole of 8"),
    "a hole of 2 s": ((12, 14, None), "hole of 2"),
    "no readings until 5 s after its start": ((0, 7, None), "do not cover"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_faulty_sensor_refuses_the_idle(name):
    (from_s, to_s, watts), words = REFUSED[name]
    found = asked(spoiled(power_channel(quiet(), 40.0), from_s, to_s, watts))
    assert found.figure.value is None
    assert codes(found) == ["cold_idle_missing"]
    assert words in found.figure.reasons[0].detail
    assert (found.by_channel_w, found.phase_terms) == ({}, ())


@pytest.mark.parametrize("counter_j", [lambda t, j: np.where((t >= 12) & (t < 15), 0.0, j), lambda t, j: j * 0 + 5e6])
def test_a_faulty_counter_refuses_it_too(counter_j):
    made = counter_channel(quiet(), 40.0)
    bad = dataclasses.replace(made, counter_j=counter_j(made.counter_times_ns / 1e9, made.counter_j))
    assert codes(asked(bad)) == ["cold_idle_missing"]


def test_a_short_hole_is_noted_and_in_the_budget():
    found = asked(spoiled(power_channel(quiet(), 40.0), 12, 12.7))
    assert codes(found) == ["holes"]
    assert found.figure.value == pytest.approx(70.0, abs=0.3)
    assert "holes" in {term.name for term in found.phase_terms}


@pytest.mark.parametrize("step_s", [0.1, 0.01])
def test_an_average_may_end_the_half_second_earlier_that_it_counts(step_s):
    """The log of a phase ends with it, and the readings stand for what was half a second before."""
    made = power_channel(quiet(), 32.0, step_s)
    shifted = dataclasses.replace(made, times_ns=made.times_ns - S // 2)
    found = idle_power("cold", IdlePhase([shifted], PHASE, ""), [shifted], step_s, CONFIG)
    assert found.figure.value == pytest.approx(70.0, abs=0.3)


def test_a_device_that_was_not_logged_is_named():
    other = power_channel(quiet(), 40.0, device="GPU-1")
    found = asked(power_channel(quiet(), 40.0), like=other)
    assert "gpu of GPU-1 (nvml) was not logged then" in found.figure.reasons[0].detail


@pytest.mark.parametrize("make", [power_channel, counter_channel])
def test_load_that_follows_at_once_does_not_leak_in(make):
    """An average of a second spreads a step over a second; a counter is read up to half a second later."""

    def then_load(at_s):
        return quiet()(at_s) + 600 * np.clip(np.asarray(at_s) - 31.5, 0, 1)

    found = asked(make(then_load, 40.0, **({"step_s": 0.45} if make is counter_channel else {})))
    assert found.figure.value == pytest.approx(70.0, abs=0.3)


@pytest.mark.parametrize("load_w", [70.0, 700.0])
def test_a_counter_is_read_within_the_phase_so_that_load_at_its_end_adds_nothing(load_w):
    """From the first to the last reading in it: nothing is interpolated, and the edges are the idle's own."""

    def then_load(at_s):
        at_s = np.asarray(at_s)
        return np.where(at_s < 31.55, 70.0, load_w) + 0.1 * np.sin(7.3 * at_s)

    found = asked(counter_channel(then_load, 40.0, step_s=0.7, reading=None))
    assert found.figure.value == pytest.approx(70.0, abs=0.05)
    (edges,) = [term.u for term in found.phase_terms if term.name == "window edges"]
    # Readings at 2.8 s and 31.5 s, the next after the end at 32.2 s.
    per_edge_w = 70.0 * COUNTER_UPDATE_S["nvml"] / np.sqrt(12) / (31.5 - 2.8)
    assert edges == pytest.approx(np.sqrt(2) * per_edge_w, rel=0.02)


def test_a_counter_that_stands_still_at_the_end_of_a_phase_is_cut_where_it_last_moved():
    made = counter_channel(quiet(), 40.0)
    late = made.counter_times_ns == 31.5 * S
    stood = np.where(late, made.counter_j[made.counter_times_ns == 31 * S], made.counter_j)
    found = asked(dataclasses.replace(made, counter_j=stood))
    assert found.figure.value == pytest.approx(70.0, abs=0.3)
