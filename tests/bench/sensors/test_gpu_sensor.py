"""NVML's readings of known powers: what they add up to, and how they err."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_energy.bench.config import Tenant
from inference_energy.bench.hardware import H100
from inference_energy.bench.sensors.nvml import GpuSensor, memory_power_w
from inference_energy.bench.truth.ledger import Floats, Integers
from inference_energy.bench.truth.power_trace import device_power
from tests.bench.sensors.waves import at, between_j, constant, every, gpu, square, trace, trapezoid_j

Reading = Callable[[GpuSensor, Integers], Floats]
READINGS: dict[str, Reading] = {"average": GpuSensor.average_w, "instant": GpuSensor.instant_w}
WAVE = square(650.0, 125.0, 0.7, 0.7)


def wave_ratio(reading: Reading, poll_s: float, seed: int) -> float:
    """Energy of 14 s of the wave by trapezoid, in true energies; each seed begins at another point of the wave."""
    times_ns = every(poll_s, 14 + seed * 0.37 % 1.4, 28 + seed * 0.37 % 1.4)
    measured_j = trapezoid_j(times_ns, reading(gpu(WAVE, seed), times_ns))
    return measured_j / between_j(WAVE, times_ns[0], times_ns[-1])


@pytest.mark.parametrize("name", READINGS)
def test_constant_power_is_read_with_its_noise_alone(name: str) -> None:
    power_w = READINGS[name](gpu(constant(455.0), noise_std_w=0.5), every(0.1, 5, 2005))
    assert power_w.mean() == pytest.approx(455.0, abs=0.05)
    assert power_w.std() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("poll_s", [1 / 300, 0.02, 0.05, 0.1, 0.2])
def test_average_of_a_square_wave_adds_up_at_any_rate(poll_s: float) -> None:
    # Measured on an H100: 1.000 to 1.012.
    ratios = [wave_ratio(GpuSensor.average_w, poll_s, seed) for seed in range(40)]
    assert np.abs(np.array(ratios) - 1).max() < 0.015


def test_instant_undersamples_a_square_wave_the_more_the_slower_it_is_polled() -> None:
    # One run on an H100: 0.986 at 300 Hz, 0.996, 0.991, 0.982 at 10 Hz, 0.939 at 5 Hz.
    spread = {}
    for hertz, measured in ((300, 0.986), (10, 0.982), (5, 0.939)):
        ratios = np.array([wave_ratio(GpuSensor.instant_w, 1 / hertz, seed) for seed in range(100)])
        assert ratios.mean() == pytest.approx(1.0, abs=0.03)
        assert ratios.min() - 0.01 < measured < ratios.max()
        spread[hertz] = ratios.std()
    averages = np.array([wave_ratio(GpuSensor.average_w, 0.2, seed) for seed in range(100)])
    assert 0.02 < spread[5] < 0.15
    assert spread[300] < spread[10] < spread[5]
    assert averages.std() < spread[5] / 10


@pytest.mark.parametrize("name", READINGS)
def test_a_steady_ripple_of_engine_steps_adds_up(name: str) -> None:
    ripple = square(620.0, 180.0, 0.0091, 0.0014, length_s=60)
    times_ns = every(0.1, 5, 55)
    measured_j = trapezoid_j(times_ns, READINGS[name](gpu(ripple), times_ns))
    assert measured_j == pytest.approx(between_j(ripple, times_ns[0], times_ns[-1]), rel=0.01)


def test_average_lags_a_step_by_its_window_and_instant_does_not() -> None:
    step = device_power(trace([0.0, 10.0], [100.0, 600.0]))
    sensor = gpu(step, noise_std_w=0.0)
    assert sensor.instant_w(at(10.25)).item() == 600.0
    assert 110.0 < sensor.average_w(at(10.25)).item() < 240.0
    assert sensor.average_w(at(11.25)).item() == 600.0


def test_average_covers_all_of_its_window_and_instant_a_quarter_of_the_time() -> None:
    # A pulse of 10 ms at every place of a period: each average holds it, one instant in four does.
    averages, instants = [], []
    for place in range(100):
        pulse = device_power(trace([0.0, 5 + place / 1000, 5.01 + place / 1000], [100.0, 600.0, 100.0]))
        sensor = gpu(pulse, noise_std_w=0.0)
        averages.append(sensor.average_w(at(5.5)).item())
        instants.append(sensor.instant_w(every(0.01, 4.9, 5.4)).max())
    assert np.allclose(averages, 105.0, atol=0.01)
    assert 0.2 < (np.array(instants) > 101.0).mean() < 0.45


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    gain=st.floats(0.85, 1.15),
    offset_w=st.floats(-5, 5),
    start_s=st.floats(1, 40),
    length_s=st.floats(0.5, 60),
)
def test_counter_is_exact_but_for_one_update(
    seed: int, gain: float, offset_w: float, start_s: float, length_s: float
) -> None:
    sensor = gpu(WAVE, seed, gain=gain, offset_w=offset_w)
    ends_ns = at(start_s, start_s + length_s)
    before_j, after_j = sensor.counter_j(ends_ns)
    shown_j = gain * between_j(WAVE, ends_ns[0], ends_ns[1]) + offset_w * length_s
    slowest_update_s = 0.1 + 0.02
    assert after_j - before_j == pytest.approx(shown_j, abs=slowest_update_s * (gain * 650 + 5))


def test_counter_only_grows_and_moves_at_its_updates_in_whole_millijoules() -> None:
    counter_j = gpu(WAVE).counter_j(every(0.001, 1, 31))
    steps_j = np.diff(counter_j)
    assert (steps_j >= 0).all()
    assert (steps_j > 0).sum() == pytest.approx(300, abs=3)
    assert np.array_equal(counter_j * 1e3, np.rint(counter_j * 1e3))


def test_a_coarse_counter_shows_only_what_it_has_filled() -> None:
    coarse_j = gpu(WAVE, counter_quantum_j=64.0).counter_j(every(0.1, 1, 31))
    assert set(coarse_j % 64.0) == {0.0}
    short_j = gpu(WAVE).counter_j(every(0.1, 1, 31)) - coarse_j
    assert 0 <= short_j.min() < 5 and 59 < short_j.max() < 64


def test_counter_and_power_fields_have_updates_of_their_own() -> None:
    sensor, times_ns = gpu(WAVE), every(0.001, 1, 11)
    counter_moves = np.flatnonzero(np.diff(sensor.counter_j(times_ns)))
    field_moves = np.flatnonzero(np.diff(sensor.driver_timestamp_us(times_ns)))
    assert len(np.intersect1d(counter_moves, field_moves)) < len(field_moves) / 4


def test_counters_began_at_other_values_whatever_the_gain() -> None:
    starts_j = [gpu(constant(300.0), device=device).counter_j(at(0.05)).item() for device in range(20)]
    again_j = [gpu(constant(300.0), device=device, gain=1.1).counter_j(at(0.05)).item() for device in range(20)]
    assert len(set(starts_j)) == 20
    assert min(starts_j) > 1e4
    assert np.allclose(starts_j, again_j, atol=5.0)


def test_gain_and_offset_are_drawn_for_each_card_around_none() -> None:
    cards = [gpu(constant(300.0), seed, gain_std=0.05, offset_std_w=2.0) for seed in range(2000)]
    gains, offsets = np.array([card.gain for card in cards]), np.array([card.offset_w for card in cards])
    assert gains.mean() == pytest.approx(1.0, abs=4 * 0.05 / np.sqrt(2000))
    assert gains.std() == pytest.approx(0.05, rel=0.08)
    assert offsets.mean() == pytest.approx(0.0, abs=4 * 2.0 / np.sqrt(2000))
    assert len({gpu(constant(300.0), 1, device, gain_std=0.05).gain for device in range(8)}) == 8
    assert gpu(constant(300.0), gain=1.127, gain_std=0.05).gain == 1.127


@pytest.mark.parametrize("name", READINGS)
def test_gain_and_offset_show_in_powers(name: str) -> None:
    power_w = READINGS[name](gpu(constant(400.0), gain=0.942, offset_w=3.0, noise_std_w=0.0), every(0.1, 2, 3))
    assert np.allclose(power_w, 0.942 * 400 + 3.0, atol=5e-4)


def test_powers_come_in_quanta_and_never_below_zero() -> None:
    power_w = gpu(constant(100.0), power_quantum_w=5.0, noise_std_w=10.0).average_w(every(0.1, 0, 100))
    assert set(power_w % 5.0) == {0.0}
    assert len(np.unique(power_w)) > 5
    assert gpu(constant(1.0), offset_w=-10.0).average_w(at(3.0)).item() == 0.0


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), start_s=st.floats(0, 50), dropped=st.sampled_from([0.0, 0.2]))
def test_polls_one_at_a_time_show_what_an_array_of_them_does(seed: int, start_s: float, dropped: float) -> None:
    times_ns = every(0.0371, start_s, start_s + 2)
    sensor = gpu(WAVE, seed, dropped_share=dropped, gain_std=0.02)
    fields = sensor.fields(times_ns)
    for name, values in (
        ("average_w", fields.average_w),
        ("instant_w", fields.instant_w),
        ("driver_timestamp_us", fields.driver_timestamp_us),
        ("counter_j", sensor.counter_j(times_ns)),
        ("counter_latency_s", sensor.counter_latency_s(times_ns)),
    ):
        # A new sensor for each poll, as in other processes.
        polls = [
            getattr(gpu(WAVE, seed, dropped_share=dropped, gain_std=0.02), name)(times_ns[place : place + 1]).item()
            for place in range(len(times_ns))
        ]
        assert np.array_equal(polls, values, equal_nan=True)


def test_driver_timestamps_are_the_wall_clock_of_the_update() -> None:
    times_ns = every(0.01, 1, 20)
    age_us = (times_ns + 10**18) // 1000 - gpu(WAVE).driver_timestamp_us(times_ns)
    assert age_us.min() >= 0
    assert 90_000 < age_us.max() < 120_000


def test_dropped_polls_have_their_share() -> None:
    sensor, times_ns = gpu(WAVE, dropped_share=0.1), every(0.1, 0, 500)
    assert np.isnan(sensor.average_w(times_ns)).mean() == pytest.approx(0.1, abs=0.02)
    assert np.array_equal(np.isnan(sensor.average_w(times_ns)), np.isnan(sensor.instant_w(times_ns)))
    assert np.isnan(sensor.counter_j(times_ns)).mean() == pytest.approx(0.1, abs=0.02)


def test_a_card_without_a_reading_gives_none() -> None:
    sensor, times_ns = gpu(WAVE, has_instant=False, has_counter=False), every(0.1, 0, 2)
    assert np.isnan(sensor.instant_w(times_ns)).all()
    assert np.isnan(sensor.counter_j(times_ns)).all()
    assert not np.isnan(sensor.average_w(times_ns)).any()


def test_a_second_tenant_is_read_too() -> None:
    tenants = [Tenant(power_w=80.0, start_s=10, end_s=20)]
    truth = device_power(trace([0.0], [120.0]), tenants, origin_ns=at(0.0).item())
    sensor = gpu(truth, noise_std_w=0.0)
    assert sensor.average_w(at(9.9, 15.0, 21.3)).tolist() == [120.0, 200.0, 120.0]
    assert np.ptp(sensor.counter_j(at(5.0, 25.0))) == pytest.approx(20 * 120 + 800, abs=15)


def test_memory_power_is_idle_at_cold_idle_and_stays_within_the_board() -> None:
    board_w = np.array([0.0, H100.cold_idle_w, 400.0, 700.0])
    memory_w = memory_power_w(board_w, H100)
    assert memory_w[1] == H100.memory_idle_w
    assert (np.diff(memory_w) > 0).all()
    assert (memory_w[1:] < board_w[1:]).all()
