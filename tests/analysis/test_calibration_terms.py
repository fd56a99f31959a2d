"""Calibrated channels and their terms, as properties: linear, conserving, and with the offset only where it counts."""

import dataclasses
import math

import numpy as np
import pytest
from factories import S, counter_channel, flickering, power_channel
from hypothesis import given
from hypothesis import strategies as st

from inference_energy.analysis.fit.cells import Bins, FitCell
from inference_energy.analysis.fit.models import MODELS, fit_model
from inference_energy.analysis.power_series import Correction
from inference_energy.analysis.uncertainty.terms import edge_term, gap_term, sampling_term, scale_terms
from inference_energy.config.analysis import Uncertainty

CHANNELS = {
    "counter": counter_channel(flickering(400.0, 80.0), 60.0),
    "power": power_channel(flickering(400.0, 80.0), 60.0),
}
STATED = Uncertainty(gain=0.03, offset_w=2.0, meter_gain=0.0)
gains = st.floats(0.5, 2.0)
offsets_w = st.floats(-100.0, 400.0)
energies_j = st.floats(1.0, 1e6)


def correction(gain=1.0, offset_w=0.0, u_gain=0.0, u_offset_w=0.0, covariance_w=0.0, entry="GPU-0", dof=math.inf):
    return Correction(entry, gain, offset_w, u_gain, u_offset_w, covariance_w, dof, f"a meter of {entry}")


def calibrated(kind, gain, offset_w):
    return dataclasses.replace(CHANNELS[kind], correction=correction(gain, offset_w))


@given(kind=st.sampled_from(sorted(CHANNELS)), gain=gains, offset_w=offsets_w, start_s=st.floats(2, 20))
def test_energy_is_linear_and_its_parts_sum_to_it(kind, gain, offset_w, start_s):
    channel, plain = calibrated(kind, gain, offset_w), CHANNELS[kind]
    start_ns, end_ns = round(start_s * S), 50 * S
    seconds = (end_ns - start_ns) / S
    total_j = channel.energy_j(start_ns, end_ns)
    assert total_j == pytest.approx(gain * plain.energy_j(start_ns, end_ns) + offset_w * seconds, rel=1e-9, abs=1e-6)
    edges_ns = np.linspace(start_ns, end_ns, 24).astype(np.int64)
    assert channel.energies_j(edges_ns).sum() == pytest.approx(total_j, rel=1e-9, abs=1e-6)
    assert channel.correction.raw_j(total_j, seconds) == pytest.approx(plain.energy_j(start_ns, end_ns), rel=1e-9)


@pytest.mark.parametrize("kind", CHANNELS)
def test_one_of_gain_one_and_no_offset_gives_the_same_bits(kind):
    same, plain = calibrated(kind, 1.0, 0.0), CHANNELS[kind]
    assert same.energy_j(5 * S, 45 * S) == plain.energy_j(5 * S, 45 * S)
    assert (same.energies_j(np.arange(5, 46) * S) == plain.energies_j(np.arange(5, 46) * S)).all()


@pytest.mark.parametrize("kind", CHANNELS)
def test_readings_and_their_checks_are_left_and_terms_of_readings_scale_with_the_gain(kind):
    channel, plain = calibrated(kind, 1.5, 300.0), CHANNELS[kind]
    span = (5 * S + S // 4, 45 * S)
    assert channel.counter_energy_j(*span) == plain.counter_energy_j(*span)
    assert channel.integral_j(channel.reading, *span) == plain.integral_j(plain.reading, *span)
    for term in (edge_term, sampling_term):
        assert term(channel, *span).u == pytest.approx(1.5 * term(plain, *span).u)
    assert gap_term(channel, *span, 0.05).u == pytest.approx(1.5 * gap_term(plain, *span, 0.05).u)


@given(
    raw_j=energies_j,
    seconds=st.floats(0.0, 1e4),
    gain=gains,
    offset_w=offsets_w,
    u_gain=st.floats(0, 0.1),
    u_offset_w=st.floats(0, 20),
    rho=st.floats(-1, 1),
)
def test_the_term_is_that_of_the_line(raw_j, seconds, gain, offset_w, u_gain, u_offset_w, rho):
    own = correction(gain, offset_w, u_gain, u_offset_w, rho * u_gain * u_offset_w)
    energy_j = gain * raw_j + offset_w * seconds
    (term, meter) = scale_terms({"a": energy_j}, seconds, {"a": own}, STATED)
    first, second = raw_j * u_gain, seconds * u_offset_w
    expected = math.sqrt(max(first**2 + second**2 + 2 * rho * first * second, 0.0))
    assert term.u == pytest.approx(expected, rel=1e-4, abs=1e-6 * (first + second) + 1e-6)
    assert (term.name, term.kind, meter.name) == ("calibration", "B", "meter")
    assert max(0.0, abs(first - second)) - 1e-3 - 1e-6 * (first + second) <= term.u <= first + second + 1e-3


@given(parts=st.lists(energies_j, min_size=1, max_size=4), gain=gains, u_gain=st.floats(1e-4, 0.1))
def test_channels_of_one_entry_err_together_and_of_several_apart(parts, gain, u_gain):
    energies = {str(place): energy_j for place, energy_j in enumerate(parts)}
    together = {name: correction(gain, u_gain=u_gain, entry="node") for name in energies}
    apart = {name: correction(gain, u_gain=u_gain, entry=name) for name in energies}
    assert scale_terms(energies, 0.0, together, STATED)[0].u == pytest.approx(u_gain * sum(parts) / gain)
    assert scale_terms(energies, 0.0, apart, STATED)[0].u == pytest.approx(
        u_gain * math.sqrt(sum(energy_j**2 for energy_j in parts)) / gain
    )


def test_above_idle_the_offsets_doubt_is_gone_and_the_meters_is_of_the_sum():
    stated = Uncertainty(gain=0.03, offset_w=2.0, meter_gain=0.01)
    known = {name: correction(1.1, 50.0, u_offset_w=9.0, entry=name) for name in ("a", "b")}
    calibration, meter = scale_terms({"a": 300.0, "b": 700.0}, 0.0, known, stated)
    assert calibration.u == 0.0
    assert meter.u == pytest.approx(10.0), "one meter, so devices do not average it out"
    assert "a meter of a; a meter of b" in calibration.basis


def cells(known, gain=1.0, offset_w=0.0):
    """Windows without scatter, of a sensor that was corrected by this line."""
    made = []
    for place, (prompts, outputs) in enumerate(((200, 200), (1000, 1000), (3000, 3000), (20_000, 20), (100, 4000))):
        raw_w = 300.0 + 0.006 * prompts + 0.05 * outputs
        energy_j = np.full(60, gain * raw_w + offset_w)
        bins = Bins(energy_j, np.full(60, float(prompts)), np.full(60, float(outputs)))
        total_j = float(energy_j.sum())
        active_j = total_j - (gain * 300.0 + offset_w) * 60.0
        made.append(
            FitCell(
                *(f"w{place}", "steady", 60.0, 60.0 * prompts, 60.0 * outputs, total_j, active_j, "gpu", "counter"),
                bins=bins,
                devices_j=(total_j,),
                corrections=(known,),
            )
        )
    return made


def test_a_fit_is_to_calibrated_energies_and_the_offset_is_a_power():
    two_term, power_term = MODELS
    known = correction(1.04, 10.0, 0.002, 0.8, -0.0012)
    found = fit_model(power_term, cells(known, 1.04, 10.0), "relative", STATED).coefficients
    raw = {"power": 300.0, "prompt": 0.006, "generated": 0.05}
    for term, figure in found.items():
        assert figure.value == pytest.approx(1.04 * raw[term] + (10.0 if term == "power" else 0.0))
        own = {one.name: one.u for one in figure.budget.terms}
        assert {"sensor gain", "sensor offset"}.isdisjoint(own)
        expected = math.sqrt(0.6**2 + 0.8**2 - 2 * 300 * 0.0012) if term == "power" else 0.002 * raw[term]
        assert own["calibration"] == pytest.approx(expected, rel=1e-6)
    active = fit_model(two_term, cells(known, 1.04, 10.0), "relative", STATED).coefficients["generated"]
    assert {one.name: one.u for one in active.budget.terms}["calibration"] == pytest.approx(0.002 * 0.05)
    stated = fit_model(power_term, cells(None), "relative", STATED).coefficients["power"]
    assert {one.name for one in stated.budget.terms} >= {"sensor gain", "sensor offset"}
