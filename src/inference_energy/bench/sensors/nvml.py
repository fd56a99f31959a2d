"""What NVML shows of a GPU whose true power is known.

    average = gain * (E(u) - E(u - 1 s)) / 1 s + offset + noise         POWER_AVERAGE: a boxcar [SC24]
    instant = gain * (E(u) - E(u - 25 ms)) / 25 ms + offset + noise     POWER_INSTANT: sees a quarter of the time [SC24]
    counter = start + gain * (E(c) - E(origin)) + offset * (c - origin)

E is the true energy, u the last update of the power fields before the poll, c that of the counter; each has its own
updates every 100 ms. The counter misses nothing and has no noise. Powers come in whole mW, the counter in whole mJ. A
GPU that does not average shows no POWER_AVERAGE. Source of the forms: [SC24] Yang, Adamek, Armour, "Part-time power
measurements", SC 2024 (arXiv 2312.02741); NVML API reference for the units.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inference_energy.bench.parts.devices import Device
from inference_energy.bench.parts.faults import SensorFault, faults_of
from inference_energy.bench.parts.sensors import NvmlSensor
from inference_energy.bench.sensors.draws import Draws
from inference_energy.bench.sensors.faulty import DeviceFaults
from inference_energy.bench.sensors.latency import Latency
from inference_energy.bench.sensors.ticks import Ticks
from inference_energy.bench.truth.segments import Floats, Integers
from inference_energy.bench.truth.trace import TruePower

FIELD_P99_RATIO = 3.0
"""99th percentile of the time a field-value call takes, in medians; assumed, for only its median was measured."""

MEMORY_SHARE = 0.25
"""Part of the power above cold idle that the memory takes; assumed."""

START_J = (1e5, 1e8)
"""What a counter may have counted before the node began: up to a fortnight at idle power."""

_FIELD_CALL, _COUNTER_CALL = 0, 1


@dataclass(frozen=True)
class FieldReadings:
    """What one call for field values gives for each poll; shape (n,) each. Powers are NaN where it gives nothing."""

    average_w: Floats
    instant_w: Floats
    driver_timestamp_us: Integers


class GpuSensor:
    """The sensors of one GPU. Stateless: every value is a function of the time of its poll.

    Args:
        sensor: how it distorts.
        truth: what it looks at.
        device: the GPU's number, counted through all nodes.
        seed: of the node.
        origin_ns: the moment the node began.
        faults: those of the node.
        clock_offset_s: how far the driver's clock is ahead of the wall clock.
        wall_ns: wall-clock time less monotonic time; with 0 driver timestamps count like the monotonic clock.
        averages: whether it has an average; one that has not always has the instant.

    Attributes:
        gain, offset_w: what this card drew.
    """

    def __init__(
        self,
        sensor: NvmlSensor,
        truth: TruePower,
        *,
        device: int,
        seed: int,
        origin_ns: int,
        faults: Sequence[SensorFault] = (),
        clock_offset_s: float = 0.0,
        wall_ns: int = 0,
        averages: bool = True,
    ) -> None:
        def draws(purpose: str) -> Draws:
            return Draws(seed, "gpu", device, purpose)

        self._sensor = sensor
        self._has_average = averages
        self._has_instant = sensor.has_instant or not averages
        self._truth = truth
        self._origin_ns = origin_ns
        self._wall_ns = wall_ns + round(clock_offset_s * 1e9)
        drawn_gain = 1.0 + sensor.gain_std * draws("gain").one_normal()
        drawn_offset_w = sensor.offset_std_w * draws("offset").one_normal()
        self.gain = drawn_gain if sensor.gain is None else sensor.gain
        self.offset_w = drawn_offset_w if sensor.offset_w is None else sensor.offset_w
        low_j, high_j = START_J
        self._start_j = low_j + (high_j - low_j) * draws("counter start").one_uniform()
        self._fields = Ticks(origin_ns, sensor.update_period_s, sensor.update_jitter_s, seed, "gpu", device, "fields")
        self._counts = Ticks(origin_ns, sensor.update_period_s, sensor.update_jitter_s, seed, "gpu", device, "counter")
        self._average_noise = draws("average noise")
        self._instant_noise = draws("instant noise")
        self._faults, self._counter_faults = (
            DeviceFaults(own, device, seed, origin_ns, sensor.dropped_share)
            for own in (faults_of("power", faults), faults_of("counter", faults))
        )
        self._counter_latency = Latency(
            sensor.counter_latency_median_s, sensor.counter_latency_p99_s, draws("counter latency")
        )
        self._field_latency = Latency(
            sensor.field_latency_s, FIELD_P99_RATIO * sensor.field_latency_s, draws("field latency")
        )

    def fields(self, times_ns: Integers) -> FieldReadings:
        """Average, instant and driver timestamp together: one call, which works or fails as a whole.

        Args:
            times_ns: when each poll is made, monotonic, shape (n,).
        """
        seen_ns = self._faults.seen_ns(times_ns)
        updates = self._fields.last(seen_ns)
        came_ns = updates[1] if seen_ns is times_ns else self._fields.last(times_ns)[1]
        return FieldReadings(
            self._masked(times_ns, self._average(*updates), _FIELD_CALL),
            self._masked(times_ns, self._instant(*updates), _FIELD_CALL),
            self._driver_us(came_ns),
        )

    def average_w(self, times_ns: Integers) -> Floats:
        """What POWER_AVERAGE shows at each poll; NaN where the call fails, and on a card without it."""
        updates = self._fields.last(self._faults.seen_ns(times_ns))
        return self._masked(times_ns, self._average(*updates), _FIELD_CALL)

    def instant_w(self, times_ns: Integers) -> Floats:
        """What POWER_INSTANT shows at each poll; NaN where the call fails, and on a card without it."""
        updates = self._fields.last(self._faults.seen_ns(times_ns))
        return self._masked(times_ns, self._instant(*updates), _FIELD_CALL)

    def counter_j(self, times_ns: Integers) -> Floats:
        """What the energy counter shows at each poll; NaN where the call fails, and on a card without it."""
        if not self._sensor.has_counter:
            return np.full(len(times_ns), np.nan)
        seen_ns = self._counter_faults.seen_ns(times_ns)
        _, came_ns = self._counts.last(seen_ns)
        reset_ns, was_reset = self._counter_faults.last_reset_ns(seen_ns)
        if was_reset.any():
            # Until the first update after it, the counter shows 0.
            since_ns = np.where(was_reset, reset_ns, self._origin_ns)
            came_ns = np.where(was_reset, np.maximum(came_ns, since_ns), came_ns)
            true_j = self._truth.energy_j(came_ns) - self._truth.energy_j(since_ns)
        else:
            since_ns = np.full(1, self._origin_ns, dtype=np.int64)
            true_j = self._truth.energy_j(came_ns) - self._truth.energy_j(since_ns)
        start_j = np.where(was_reset, 0.0, self._start_j)
        energy_j = start_j + self.gain * true_j + self.offset_w * ((came_ns - since_ns) / 1e9)
        quantum_j = self._sensor.counter_quantum_j
        return self._masked(times_ns, _milli(np.floor(energy_j / quantum_j) * quantum_j), _COUNTER_CALL)

    def driver_timestamp_us(self, times_ns: Integers) -> Integers:
        """The driver's clock at the last update before each poll, in us. A stuck sensor's goes on."""
        return self._driver_us(self._fields.last(times_ns)[1])

    def counter_latency_s(self, count: Integers) -> Floats:
        """What calls for the energy counter take.

        Args:
            count: a whole number that names each call, such as when it is made in ns, shape (n,).
        """
        return self._counter_latency.seconds(count)

    def field_latency_s(self, count: Integers) -> Floats:
        """What calls for field values take; see `counter_latency_s`."""
        return self._field_latency.seconds(count)

    def _driver_us(self, came_ns: Integers) -> Integers:
        return (came_ns + self._wall_ns) // 1000 + self._faults.clock_step_us(came_ns)

    def _average(self, index: Integers, came_ns: Integers) -> Floats:
        if not self._has_average:
            return np.full(len(index), np.nan)
        return self._power_w(came_ns, self._sensor.average_window_s, self._average_noise, index)

    def _instant(self, index: Integers, came_ns: Integers) -> Floats:
        if not self._has_instant:
            return np.full(len(index), np.nan)
        return self._power_w(came_ns, self._sensor.instant_window_s, self._instant_noise, index)

    def _power_w(self, until_ns: Integers, window_s: float, noise: Draws, index: Integers) -> Floats:
        """Mean over the window that ends at an update, distorted."""
        from_ns = until_ns - max(1, round(window_s * 1e9))
        energy_j = self._truth.energy_j(until_ns) - self._truth.energy_j(from_ns)
        power_w = self.gain * energy_j / ((until_ns - from_ns) / 1e9) + self.offset_w
        if self._sensor.noise_std_w:
            power_w = power_w + self._sensor.noise_std_w * noise.normal(index)
        quantum_w = self._sensor.power_quantum_w
        return _milli(np.rint(np.maximum(power_w, 0.0) / quantum_w) * quantum_w)

    def _masked(self, times_ns: Integers, values: Floats, call: int) -> Floats:
        faults = self._counter_faults if call == _COUNTER_CALL else self._faults
        shown = np.where(faults.reads_zero(times_ns) & ~np.isnan(values), 0.0, values)
        return np.where(faults.fails(times_ns, call), np.nan, shown)


def memory_power_w(board_w: Floats, device: Device) -> Floats:
    """What POWER_AVERAGE shows for the memory (scope 2) beside a board's.

    memory = memory at cold idle + 0.25 * (board - cold idle); a rule of thumb, so that the channel is there and moves.
    """
    return np.maximum(device.memory_idle_w + MEMORY_SHARE * (board_w - device.cold_idle_w), 0.0)


def _milli(values: Floats) -> Floats:
    """The nearest thousandths, as the caller gets them who divides NVML's whole number by 1000."""
    return np.asarray(np.rint(values * 1e3) / 1e3, dtype=np.float64)
