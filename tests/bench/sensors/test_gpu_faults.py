"""Faults of NVML's sensors on demand."""

from collections.abc import Callable

import numpy as np
import pytest

from inference_energy.bench.config import SensorFault
from inference_energy.bench.sensors.nvml import GpuSensor
from inference_energy.bench.truth.ledger import Floats, Integers
from tests.bench.sensors.waves import at, constant, every, gpu, square

Reading = Callable[[GpuSensor, Integers], Floats]

WAVE = square(650.0, 125.0, 0.73, 0.7)
TIMES = every(0.1, 0, 60)
WITHIN = (at(20.0) <= TIMES) & (at(30.0) > TIMES)
READINGS: list[Reading] = [GpuSensor.average_w, GpuSensor.instant_w, GpuSensor.counter_j]


def fault(kind: str, **values: float | int | str | None) -> SensorFault:
    return SensorFault.model_validate({"kind": kind, "start_s": 20, "end_s": 30, **values})


@pytest.mark.parametrize("reading", READINGS)
def test_errors_come_within_their_time_alone(reading: Reading) -> None:
    values = reading(gpu(WAVE, faults=[fault("error")]), TIMES)
    assert np.array_equal(np.isnan(values), WITHIN)
    healthy = reading(gpu(WAVE), TIMES)
    assert np.array_equal(values[~WITHIN], healthy[~WITHIN])


def test_errors_have_their_probability_and_are_the_same_each_time() -> None:
    sensor = gpu(WAVE, faults=[fault("error", probability=0.3)])
    times_ns = every(0.002, 20, 30)[:-1]
    failed = np.isnan(sensor.average_w(times_ns))
    assert failed.mean() == pytest.approx(0.3, abs=0.03)
    assert np.array_equal(failed, np.isnan(sensor.average_w(times_ns)))
    assert not np.array_equal(failed, np.isnan(sensor.counter_j(times_ns)))
    other = gpu(WAVE, device=1, faults=[fault("error", probability=0.3)])
    assert not np.array_equal(failed, np.isnan(other.average_w(times_ns)))


@pytest.mark.parametrize("reading", READINGS)
def test_a_stuck_sensor_stays_at_its_value_and_comes_back(reading: Reading) -> None:
    values = reading(gpu(WAVE, faults=[fault("stuck")]), TIMES)
    healthy = reading(gpu(WAVE), TIMES)
    assert np.unique(values[WITHIN]).tolist() == reading(gpu(WAVE), at(20.0)).tolist()
    assert np.array_equal(values[~WITHIN], healthy[~WITHIN])
    assert len(np.unique(healthy[WITHIN])) > 50


@pytest.mark.parametrize("kind", ["error", "stuck", "zero"])
def test_a_fault_may_be_that_of_the_power_readings_or_of_the_counter_alone(kind: str) -> None:
    healthy = gpu(WAVE)
    for spoiled, name in ((READINGS[:2], "power"), (READINGS[2:], "counter")):
        sensor = gpu(WAVE, faults=[fault(kind, readings=name)])
        for reading in READINGS:
            same = np.array_equal(reading(sensor, TIMES), reading(healthy, TIMES))
            assert same is (reading not in spoiled)


def test_a_stuck_sensors_timestamps_go_on() -> None:
    stuck, healthy = gpu(WAVE, faults=[fault("stuck")]), gpu(WAVE)
    assert np.array_equal(stuck.fields(TIMES).driver_timestamp_us, healthy.driver_timestamp_us(TIMES))
    assert np.array_equal(stuck.driver_timestamp_us(TIMES), healthy.driver_timestamp_us(TIMES))


def test_where_two_stuck_times_overlap_the_first_value_stays() -> None:
    faults = [fault("stuck", start_s=25, end_s=40), fault("stuck")]
    values = gpu(WAVE, faults=faults).average_w(at(20.0, 28.0, 35.0))
    assert len(set(values)) == 1


@pytest.mark.parametrize("reading", READINGS)
def test_a_zero_sensor_reads_zero(reading: Reading) -> None:
    values = reading(gpu(WAVE, faults=[fault("zero")]), TIMES)
    assert np.array_equal(values == 0, WITHIN)


def test_zero_does_not_make_up_a_reading_that_the_card_lacks() -> None:
    sensor = gpu(WAVE, faults=[fault("zero")], has_instant=False, has_counter=False)
    assert np.isnan(sensor.instant_w(TIMES)).all()
    assert np.isnan(sensor.counter_j(TIMES)).all()


def test_a_counter_begins_anew_and_grows_but_there() -> None:
    sensor = gpu(
        constant(400.0), faults=[fault("counter_reset"), fault("counter_reset", start_s=45, end_s=45)], gain=1.05
    )
    counter_j = sensor.counter_j(TIMES)
    assert (np.flatnonzero(np.diff(counter_j) < 0) + 1).tolist() == [200, 450]
    assert 0 <= counter_j[[200, 450]].min() <= counter_j[[200, 450]].max() <= 0.12 * 1.05 * 400
    assert counter_j[449] == pytest.approx(1.05 * 400 * 24.9, abs=0.12 * 1.05 * 400)
    assert np.array_equal(counter_j[:200], gpu(constant(400.0), gain=1.05).counter_j(TIMES[:200]))


def test_the_drivers_clock_jumps_and_nothing_else() -> None:
    sensor, healthy = gpu(WAVE, faults=[fault("clock_step", step_s=-2.5)]), gpu(WAVE)
    off_us = sensor.driver_timestamp_us(TIMES) - healthy.driver_timestamp_us(TIMES)
    assert set(off_us[~WITHIN][:200]) == {0}
    assert set(off_us[WITHIN][2:]) == {-2_500_000}
    assert off_us[-1] == 0
    assert np.array_equal(sensor.average_w(TIMES), healthy.average_w(TIMES))


def test_a_fault_strikes_its_gpu_or_all() -> None:
    def failed(device: int, struck: int | None) -> bool:
        sensor = gpu(WAVE, device=device, faults=[fault("error", device=struck)])
        return bool(np.isnan(sensor.average_w(at(25.0))).item())

    assert [failed(device, 1) for device in range(3)] == [False, True, False]
    assert [failed(device, None) for device in range(3)] == [True, True, True]
