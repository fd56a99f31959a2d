"""Temperature: where it goes, how fast, and what leaks for it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_energy.bench.hardware import DEVICES
from inference_energy.bench.truth.step import Thermal

H100 = DEVICES["h100"]
POWER_W = st.floats(0, 700)
SECONDS = st.floats(0, 200)


def warmed(*stretches: tuple[float, float]) -> Thermal:
    thermal = Thermal(H100)
    for duration_s, power_w in stretches:
        thermal.advance(duration_s, power_w)
    return thermal


@pytest.mark.parametrize("name", DEVICES)
def test_cold_idle_is_a_rest_without_leakage(name: str) -> None:
    device = DEVICES[name]
    thermal = Thermal(device)
    assert thermal.temperature_c == device.ambient_c + device.k_per_w * device.cold_idle_w
    assert thermal.leakage_w == 0
    thermal.advance(1000.0, device.cold_idle_w)
    assert thermal.leakage_w == pytest.approx(0, abs=1e-9)


@given(POWER_W)
def test_long_power_ends_at_ambient_plus_resistance_times_power(power_w: float) -> None:
    thermal = warmed((5000.0, power_w))
    assert thermal.temperature_c == pytest.approx(H100.ambient_c + H100.k_per_w * power_w, rel=1e-12)
    risen_w = H100.leakage_w_per_k * H100.k_per_w * (power_w - H100.cold_idle_w)
    assert thermal.leakage_w == pytest.approx(risen_w, abs=1e-9)


def test_time_constant_is_when_63_percent_are_there() -> None:
    thermal = warmed((H100.thermal_time_s, 600.0))
    share = (thermal.temperature_c - thermal.rest_c) / (H100.k_per_w * (600.0 - H100.cold_idle_w))
    assert share == pytest.approx(1 - math.exp(-1), rel=1e-9)


@given(SECONDS, SECONDS, POWER_W, POWER_W)
def test_splitting_a_stretch_changes_nothing(first_s: float, second_s: float, before_w: float, power_w: float) -> None:
    whole = warmed((30.0, before_w), (first_s + second_s, power_w))
    split = warmed((30.0, before_w), (first_s, power_w), (second_s, power_w))
    assert split.temperature_c == pytest.approx(whole.temperature_c, abs=1e-9)


@given(SECONDS, POWER_W, POWER_W)
def test_temperature_never_passes_where_it_goes(duration_s: float, before_w: float, power_w: float) -> None:
    thermal = warmed((50.0, before_w))
    start_c, target_c = thermal.temperature_c, H100.ambient_c + H100.k_per_w * power_w
    thermal.advance(duration_s, power_w)
    assert min(start_c, target_c) - 1e-9 <= thermal.temperature_c <= max(start_c, target_c) + 1e-9
