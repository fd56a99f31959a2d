"""NVML's view of a GPU whose true power is known: power, energy counter, state, and injected faults.

    average = gain * (E(u) - E(u - 1 s)) / 1 s + offset + noise         POWER_AVERAGE: a boxcar [SC24]
    instant = gain * (E(u) - E(u - 25 ms)) / 25 ms + offset + noise     POWER_INSTANT: sees a quarter of the time [SC24]
    counter = start + gain * (E(c) - E(origin)) + offset * (c - origin)

E is the true energy, u the last update of the power fields before the poll, c that of the counter. Power fields and
counter each have their own updates every 100 ms. The counter misses nothing and has no noise. Powers come in whole mW,
the counter in whole mJ. A GPU that does not average shows no POWER_AVERAGE. Sources: [SC24] Yang, Adamek, Armour,
"Part-time power measurements", SC 2024 (arXiv 2312.02741); NVML API reference for the units.

The state (utilization, memory, clock, temperature, clocks event reasons) comes from the trace. Whether a model is in
memory is inferred from the power without leakage: nearer to loaded idle than to cold idle, or above.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_energy.bench.config import Node, NvmlSensor, SensorFault, select_faults
from inference_energy.bench.hardware import Device
from inference_energy.bench.sensors.update_clock import CallLatency, RandomStream, UpdateClock
from inference_energy.bench.truth.ledger import POWER_CAP, THERMAL_SLOWDOWN, Floats, Integers
from inference_energy.bench.truth.power_trace import Steps, TruePower

UTILIZATION_WINDOW_S = 1.0
"""NVML: the share of the past sample period, 1/6 s to 1 s by product, in which a kernel ran; whole percent."""

EMPTY_BYTES = 600 * 2**20
"""Memory the driver takes on a GPU that nobody uses; assumed."""

SLOWED_CLOCK_SHARE = 0.85
"""Part of the clock that is left under a power cap or heat; assumed."""

Truths = NDArray[np.bool_]

FIELD_P99_RATIO = 3.0
"""99th percentile of the duration of a field-value call, in medians; assumed, since only the median was measured."""

MEMORY_SHARE = 0.25
"""Part of the power above cold idle that the memory draws; assumed."""

START_J = (1e5, 1e8)
"""Range of a counter's value when the node begins: up to a fortnight at idle power."""

_FIELD_CALL, _COUNTER_CALL = 0, 1


@dataclass(frozen=True)
class GpuState:
    """State of a GPU at n times, shape (n,) each, with the names of power.parquet."""

    utilization: Floats
    memory_used_bytes: Integers
    sm_clock_mhz: Integers
    temperature_c: Floats
    clocks_event_reasons: Integers


def gpu_state(node: Node, trace: NDArray[np.void], times_ns: Integers) -> GpuState:
    """Return the state of a GPU at given times.

    Args:
        node: its settings.
        trace: of `TRACE_DTYPE`, shape (rows,), at least one row.
        times_ns: times of the polls, shape (n,).
    """
    device = node.device
    starts_ns = trace["start_ns"].astype(np.int64)
    row = trace[np.maximum(np.searchsorted(starts_ns, times_ns, side="right") - 1, 0)]
    busy_s = Steps(starts_ns, trace["busy"].astype(np.float64)).energy_j
    used = (busy_s(times_ns) - busy_s(times_ns - round(UTILIZATION_WINDOW_S * 1e9))) / UTILIZATION_WINDOW_S
    rest_c = device.ambient_c + device.k_per_w * device.cold_idle_w
    base_w = row["gpu_w"] - device.leakage_w_per_k * (row["temperature_c"] - rest_c)
    loaded = (row["busy"] > 0) | (base_w > (device.cold_idle_w + device.loaded_idle_w) / 2)
    slowed = (row["events"] & (POWER_CAP | THERMAL_SLOWDOWN)) > 0
    clock_mhz = np.where(loaded, device.sm_clock_mhz, device.idle_clock_mhz)
    model_bytes = round(device.memory_bytes * node.engine.gpu_memory_utilization)
    return GpuState(
        utilization=np.rint(np.clip(used, 0.0, 1.0) * 100) / 100,
        memory_used_bytes=np.where(loaded, model_bytes, EMPTY_BYTES).astype(np.int64),
        sm_clock_mhz=np.rint(np.where(slowed, SLOWED_CLOCK_SHARE * clock_mhz, clock_mhz)).astype(np.int64),
        temperature_c=np.rint(row["temperature_c"]).astype(np.float64),
        clocks_event_reasons=row["events"].astype(np.int64),
    )


class DeviceFaults:
    """Faults of one GPU's sensors.

    Args:
        faults: faults of the node; those of other GPUs are left out.
        device: number of this GPU.
        seed: seed of the node.
        origin_ns: the moment that fault times count from.
        dropped_share: share of polls that return nothing, at any time.
    """

    def __init__(
        self, faults: Sequence[SensorFault], device: int, seed: int, origin_ns: int, dropped_share: float
    ) -> None:
        here = [fault for fault in faults if fault.device in (None, device)]
        self._origin_ns = origin_ns
        # The latest first: where two overlap, the sensor stays at the value that the earlier one left.
        self._stuck = sorted(self._spans("stuck", here), reverse=True)
        self._zero = self._spans("zero", here)
        self._resets_ns = sorted(start_ns for start_ns, _ in self._spans("counter_reset", here))
        self._steps = [(*self._span(fault), round(fault.step_s * 1e6)) for fault in here if fault.kind == "clock_step"]
        errors = [fault for fault in here if fault.kind == "error"]
        self._errors = [
            (*self._span(fault), fault.probability, RandomStream(seed, "gpu", device, "error", number))
            for number, fault in enumerate(errors)
        ]
        if dropped_share:
            always_ns = np.iinfo(np.int64)
            dropped = RandomStream(seed, "gpu", device, "dropped")
            self._errors.append((int(always_ns.min), int(always_ns.max), dropped_share, dropped))

    def seen_ns(self, times_ns: Integers) -> Integers:
        """Return the time whose value each poll gets: its own, or when the sensor got stuck."""
        for start_ns, end_ns in self._stuck:
            times_ns = np.where((times_ns >= start_ns) & (times_ns < end_ns), start_ns, times_ns)
        return times_ns

    def fails(self, times_ns: Integers, call: int) -> Truths:
        """Return whether each poll fails.

        Args:
            times_ns: times of the polls, shape (n,).
            call: number of the call among those that may be made at the same moment.
        """
        failed = np.zeros(len(times_ns), dtype=np.bool_)
        for start_ns, end_ns, probability, draws in self._errors:
            within = (times_ns >= start_ns) & (times_ns < end_ns)
            if probability < 1.0:
                within &= draws.uniform(times_ns * 4 + call) < probability
            failed |= within
        return failed

    def reads_zero(self, times_ns: Integers) -> Truths:
        """Return whether each poll shows 0."""
        zero = np.zeros(len(times_ns), dtype=np.bool_)
        for start_ns, end_ns in self._zero:
            zero |= (times_ns >= start_ns) & (times_ns < end_ns)
        return zero

    def last_reset_ns(self, times_ns: Integers) -> tuple[Integers, Truths]:
        """Return the counter's last reset before each time (0 where there is none), and whether there is one."""
        if not self._resets_ns:
            return np.zeros_like(times_ns), np.zeros(len(times_ns), dtype=np.bool_)
        resets_ns = np.array(self._resets_ns, dtype=np.int64)
        count = np.searchsorted(resets_ns, times_ns, side="right")
        return np.where(count > 0, resets_ns[np.maximum(count - 1, 0)], 0), count > 0

    def clock_step_us(self, times_ns: Integers) -> Integers:
        """Return the error of the driver's clock at each time [us]."""
        off_us = np.zeros_like(times_ns)
        for start_ns, end_ns, step_us in self._steps:
            off_us += step_us * ((times_ns >= start_ns) & (times_ns < end_ns))
        return off_us

    def _span(self, fault: SensorFault) -> tuple[int, int]:
        return self._origin_ns + round(fault.start_s * 1e9), self._origin_ns + round(fault.end_s * 1e9)

    def _spans(self, kind: str, faults: Sequence[SensorFault]) -> list[tuple[int, int]]:
        return [self._span(fault) for fault in faults if fault.kind == kind]


@dataclass(frozen=True)
class FieldReadings:
    """Results of one call for field values at each poll; shape (n,) each. Powers are NaN where the call fails."""

    average_w: Floats
    instant_w: Floats
    driver_timestamp_us: Integers


class GpuSensor:
    """Sensors of one GPU. Stateless: every value is a function of the time of its poll.

    Args:
        sensor: settings of the sensors.
        truth: true power of the GPU.
        device: the GPU's number, counted through all nodes.
        seed: seed of the node.
        origin_ns: when the node began.
        faults: faults of the node.
        clock_offset_s: how far the driver's clock is ahead of the wall clock.
        wall_ns: wall-clock time minus monotonic time; with 0 driver timestamps count like the monotonic clock.
        averages: whether it has an average; a GPU without one always has the instant.

    Attributes:
        gain: gain that this card drew.
        offset_w: offset that this card drew.
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
        def draws(purpose: str) -> RandomStream:
            return RandomStream(seed, "gpu", device, purpose)

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
        self._fields = UpdateClock(
            origin_ns, sensor.update_period_s, sensor.update_jitter_s, seed, "gpu", device, "fields"
        )
        self._counts = UpdateClock(
            origin_ns, sensor.update_period_s, sensor.update_jitter_s, seed, "gpu", device, "counter"
        )
        self._average_noise = draws("average noise")
        self._instant_noise = draws("instant noise")
        self._faults, self._counter_faults = (
            DeviceFaults(readings, device, seed, origin_ns, sensor.dropped_share)
            for readings in (select_faults("power", faults), select_faults("counter", faults))
        )
        self._counter_latency = CallLatency(
            sensor.counter_latency_median_s, sensor.counter_latency_p99_s, draws("counter latency")
        )
        self._field_latency = CallLatency(
            sensor.field_latency_s, FIELD_P99_RATIO * sensor.field_latency_s, draws("field latency")
        )

    def fields(self, times_ns: Integers) -> FieldReadings:
        """Return average, instant and driver timestamp of one call, which works or fails as a whole.

        Args:
            times_ns: monotonic times of the polls, shape (n,).
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
        """Return POWER_AVERAGE at each poll; NaN where the call fails, and on a card without it."""
        updates = self._fields.last(self._faults.seen_ns(times_ns))
        return self._masked(times_ns, self._average(*updates), _FIELD_CALL)

    def instant_w(self, times_ns: Integers) -> Floats:
        """Return POWER_INSTANT at each poll; NaN where the call fails, and on a card without it."""
        updates = self._fields.last(self._faults.seen_ns(times_ns))
        return self._masked(times_ns, self._instant(*updates), _FIELD_CALL)

    def counter_j(self, times_ns: Integers) -> Floats:
        """Return the energy counter at each poll; NaN where the call fails, and on a card without it."""
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
        """Return the driver's clock at the last update before each poll [us]. A stuck sensor's clock goes on."""
        return self._driver_us(self._fields.last(times_ns)[1])

    def counter_latency_s(self, count: Integers) -> Floats:
        """Return the durations of calls for the energy counter.

        Args:
            count: a whole number that names each call, such as its time in ns, shape (n,).
        """
        return self._counter_latency.seconds(count)

    def field_latency_s(self, count: Integers) -> Floats:
        """Return the durations of calls for field values; see `counter_latency_s`."""
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

    def _power_w(self, until_ns: Integers, window_s: float, noise: RandomStream, index: Integers) -> Floats:
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
    """Return POWER_AVERAGE of the memory (scope 2) for that of the board.

    memory = memory at cold idle + 0.25 * (board - cold idle); a rule of thumb, so that the channel exists and moves.
    """
    return np.maximum(device.memory_idle_w + MEMORY_SHARE * (board_w - device.cold_idle_w), 0.0)


def _milli(values: Floats) -> Floats:
    """Return the nearest thousandths, as from dividing NVML's whole number by 1000."""
    return np.asarray(np.rint(values * 1e3) / 1e3, dtype=np.float64)
