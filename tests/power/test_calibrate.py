"""`calibrate`: the fit on logs with a known gain and offset, settings, file. Whole runs: test_calibrate_run.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from inference_energy.acquire.power.base import PowerSample
from inference_energy.acquire.power.calibrate.measure import (
    METERS,
    Phase,
    PhaseMeans,
    meter_source,
    phase_means,
    power_of,
    record,
    save,
    track_of,
)
from inference_energy.acquire.power.calibrate.york_fit import Line, fit_line
from inference_energy.cli.main import app
from inference_energy.contracts.calibration import Calibration, read_calibrations
from inference_energy.errors import InputError, RunError

pytestmark = pytest.mark.slow

SECOND_NS = 1_000_000_000
LEVELS_W = (75.0, 690.0, 400.0, 125.0, 695.0, 405.0, 127.0)
SHELLY = '{"kind": "shelly", "address": "http://plug.lan"}'


def readings(
    levels_w: tuple[float, ...], period_s: float, noise_w: float, seed: int, phase_s: float
) -> list[PowerSample]:
    draw = np.random.default_rng(seed)
    times_s = np.arange(0, len(levels_w) * phase_s + 1, period_s)
    level_w = np.array(levels_w)[np.minimum((times_s / phase_s).astype(int), len(levels_w) - 1)]
    power_w = level_w + noise_w * draw.standard_normal(len(times_s))
    return [
        PowerSample(int(at_s * 1e9), 10.0, power_average_w=float(watts))
        for at_s, watts in zip(times_s, power_w, strict=True)
    ]


def phases_of(count: int, phase_s: float) -> list[Phase]:
    return [
        Phase(f"{place}", int((place * phase_s + 5) * 1e9), int(((place + 1) * phase_s - 2) * 1e9))
        for place in range(count)
    ]


def fitted(gain: float, offset_w: float, seed: int) -> Any:
    """From logs of two GPUs and a meter at 1 Hz that shows gain * their sum + offset."""
    half = tuple(level_w / 2 for level_w in LEVELS_W)
    outside = tuple(gain * level_w + offset_w for level_w in LEVELS_W)
    own = [track_of(f"gpu {k}", readings(half, 0.1, 1.0, 10 * seed + k, 30), counted=True) for k in range(2)]
    meter = [track_of("plug", readings(outside, 1.0, 2.0, 10 * seed + 5, 30), counted=False)]
    means = phase_means(own, meter, phases_of(len(LEVELS_W), 30))
    columns = np.array([[mean.own_w, mean.u_own_w, mean.meter_w, mean.u_meter_w] for mean in means]).T
    return fit_line(*columns)


@settings(max_examples=15)
@given(gain=st.floats(0.85, 1.3), offset_w=st.floats(-20, 400), seed=st.integers(0, 1000))
def test_gain_and_offset_are_found(gain: float, offset_w: float, seed: int) -> None:
    line = fitted(gain, offset_w, seed)
    assert line.gain == pytest.approx(gain, abs=0.01)
    assert line.offset_w == pytest.approx(offset_w, abs=4)
    assert 0 < line.u_gain < 0.01 and 0 < line.u_offset_w < 4
    assert line.covariance_w < 0, "a larger gain goes with a smaller offset"


def test_the_standard_errors_cover_the_truth() -> None:
    """Points scattered with known uncertainties in both directions: two standard errors cover 19 of 20."""
    true_w = np.array(LEVELS_W)
    u_own_w, u_meter_w = np.full(7, 1.5), np.full(7, 2.0)
    hits = 0
    for seed in range(300):
        draw = np.random.default_rng(seed)
        own_w = true_w + u_own_w * draw.standard_normal(7)
        meter_w = 1.1 * true_w + 60 + u_meter_w * draw.standard_normal(7)
        line = fit_line(own_w, u_own_w, meter_w, u_meter_w)
        hits += abs(line.gain - 1.1) < 1.96 * line.u_gain and abs(line.offset_w - 60) < 3 * line.u_offset_w
    assert 0.91 < hits / 300 <= 1


def test_points_off_the_line_widen_its_errors() -> None:
    own_w, u_w = np.array(LEVELS_W), np.full(7, 0.5)
    bent_w = own_w + 10 * np.array([1, -1, 1, -1, 1, -1, 1])
    straight, bent = fit_line(own_w, u_w, own_w, u_w), fit_line(own_w, u_w, bent_w, u_w)
    assert bent.chi2_per_dof > 100
    assert bent.u_gain > 10 * straight.u_gain


def test_york_agrees_with_his_published_example() -> None:
    """Pearson's data with York's weights: York et al. 2004, table II gives slope -0.480533, intercept 5.479910."""
    x = np.array([0.0, 0.9, 1.8, 2.6, 3.3, 4.4, 5.2, 6.1, 6.5, 7.4])
    y = np.array([5.9, 5.4, 4.4, 4.6, 3.5, 3.7, 2.8, 2.8, 2.4, 1.5])
    weight_x = np.array([1000, 1000, 500, 800, 200, 80, 60, 20, 1.8, 1.0])
    weight_y = np.array([1.0, 1.8, 4, 8, 20, 20, 70, 70, 100, 500])
    line = fit_line(x, weight_x**-0.5, y, weight_y**-0.5)
    assert line.gain == pytest.approx(-0.480533, abs=1e-6)
    assert line.offset_w == pytest.approx(5.479910, abs=1e-6)
    assert line.chi2_per_dof == pytest.approx(1.483294, abs=1e-5)
    assert line.u_gain == pytest.approx(0.057985 * 1.483294**0.5, rel=1e-3)
    assert line.u_offset_w == pytest.approx(0.294971 * 1.483294**0.5, rel=1e-3)


def test_too_little_to_tell_a_gain_is_refused() -> None:
    u_w = np.full(4, 1.0)
    with pytest.raises(RunError, match="3 are needed"):
        fit_line(np.ones(2), u_w[:2], np.ones(2), u_w[:2])
    with pytest.raises(RunError, match="too little beside its noise"):
        fit_line(np.array([100.0, 101, 102, 103]), u_w, np.array([100.0, 101, 102, 103]), u_w)


def test_a_counter_comes_before_power_where_it_may() -> None:
    rows = [
        PowerSample(k * SECOND_NS, 1.0, power_average_w=50.0, energy_counter_j=1000.0 + 100.0 * k) for k in range(31)
    ]
    phase = Phase("x", 5 * SECOND_NS, 25 * SECOND_NS)
    assert power_of([track_of("gpu", rows, counted=True)], phase) == pytest.approx((100.0, 0.0))
    assert power_of([track_of("plug", rows, counted=False)], phase) == pytest.approx((50.0, 0.0))


def test_a_channel_that_fell_silent_is_named() -> None:
    rows = [PowerSample(k * SECOND_NS, 1.0, power_average_w=50.0) for k in range(10)]
    track = track_of("pdu a/1 node", rows, counted=False)
    with pytest.raises(RunError, match="pdu a/1 node gave 0 readings in the phase rest 1"):
        power_of([track], Phase("rest 1", 20 * SECOND_NS, 30 * SECOND_NS))
    with pytest.raises(RunError, match="gpu gave 2 readings"):
        track_of("gpu", rows[:2], counted=True)


@pytest.mark.parametrize(
    ("meter", "text", "said"),
    [
        ("wattmeter", "{}", "--meter wattmeter: write one of smart-plug, pdu"),
        ("smart-plug", "{", "--settings: not JSON"),
        ("smart-plug", "/no/such/file.json", "--settings /no/such/file.json"),
        ("smart-plug", '{"kind": "shelly"}', "--settings: address"),
        ("smart-plug", '{"kind": "shelly", "address": "http://x", "password": "y"}', "--settings: password"),
    ],
)
def test_a_meter_that_is_not_set_up_is_refused(meter: str, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        meter_source(meter, text)


def test_settings_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "plug.json").write_text(SHELLY)
    assert meter_source("smart-plug", str(tmp_path / "plug.json")).name == "smart-plug"
    assert set(METERS) == {"smart-plug", "pdu", "redfish", "ipmi"}


def test_calibrations_of_other_devices_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    for name, gain in (("node", 1.0), ("GPU-1", 1.1), ("node", 1.2)):
        save(path, name, made(gain))
    found = read_calibrations(path)
    assert {name: one.gain for name, one in found.entries.items()} == {"node": 1.2, "GPU-1": 1.1}
    assert found.entries["node"] == made(1.2), "what is written is what is read"
    assert json.loads(path.read_text())["version"] == 1
    path.write_text("[]")
    with pytest.raises(InputError, match="holds something else"):
        save(path, "node", made(1.0))


def made(gain: float) -> Calibration:
    line = Line(gain, 2.0, 0.01, 0.5, -0.002, 0.9)
    means = [PhaseMeans("cold idle", 70.0, 0.1, 75.0, 0.2)]
    calibration = record(
        line, means, ["nvml GPU-1 gpu"], {"name": "pdu", "grade": "metered", "devices": ["a/1"]}, "metered"
    )
    return calibration.model_copy(update={"date": "2026-11-20T10:00:00+00:00"})


def test_a_meter_that_falls_as_the_node_rises_is_refused() -> None:
    with pytest.raises(RunError, match="does not follow"):
        made(-0.3)


def test_the_command_refuses_short_phases() -> None:
    result = CliRunner().invoke(app, ["calibrate", "--meter", "smart-plug", "--settings", SHELLY, "--phase", "2"])
    assert isinstance(result.exception, InputError)
    assert "--phase 2" in str(result.exception)
