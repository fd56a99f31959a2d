"""Power and energy channels of one NVIDIA GPU: its power and state, its energy counter, its memory and superchip.

Field numbers and scopes: NVML API reference, "Field Value Enums" and nvmlDeviceGetFieldValues. A scope is the GPU (with
its board), the module, or the memory. If the module's power can be read, the energy counter is the module's too, as on
GH200 (Zeus, pull request 172).

The driver keeps a ring of power samples, one every 20 ms, that no late poll can lose. Observed on an H100 with driver
580: 119 samples 20 ms apart, stamped by the driver in us of the wall clock, the newest visible within 2 ms of its
stamp. Source: NVML API reference, nvmlDeviceGetSamples with NVML_TOTAL_POWER_SAMPLES.
"""

import time
from collections.abc import Callable
from typing import Any

from inference_energy.acquire.power.base import PowerSample, SensorChannel, SourceError, timed
from inference_energy.acquire.power.sources.nvml.device import Card, mapped, source_error, unsupported
from inference_energy.acquire.power.sources.sanity import usage_window_s
from inference_energy.contracts.io import clock_anchor
from inference_energy.contracts.power import GPU_MODULE, GPU_SAMPLES

COUNTER_PERIOD_S = 0.5
EXTRAS_PERIOD_S = 1.0
SCOPE_GPU, SCOPE_MODULE, SCOPE_MEMORY = 0, 1, 2
"""NVML_POWER_SCOPE_GPU and so on."""


class PowerChannel(SensorChannel):
    """The GPU's power, and every second the state that explains it.

    `turn`, from 0 to below 1, spreads the reads of the GPUs' states over time: all in one poll would take too long.
    """

    def __init__(self, nvml: Any, card: Card, turn: float = 0.0) -> None:
        super().__init__("nvml", card.uuid, "gpu", "sampled")
        self._nvml = nvml
        self._handle = card.handle
        self._instant_usage = usage_window_s(card.capability) == 0.0
        self._has_fields = True
        self._extras_due_s = 0.0
        self._extras_pause_s = EXTRAS_PERIOD_S * (1.0 - turn)
        self._latency = DriverLatency()

    def diagnostics(self) -> dict[str, Any]:
        """Return `driver_latency_us`: `mean` and `max` of the driver's own latency of the values."""
        return self._latency.diagnostics()

    def read(self) -> PowerSample:
        """Read both powers, and the state once a second."""
        nvml = self._nvml
        try:
            reading = read_fields(nvml, self._handle, SCOPE_GPU, self._latency) if self._has_fields else None
            if reading is None:
                self._has_fields = False
                reading = self._read_usage()
        except nvml.NVMLError as error:
            raise source_error(nvml, error, f"power of {self.device}") from error
        now_s = time.monotonic()
        if now_s < self._extras_due_s:
            return reading
        self._extras_due_s = now_s + self._extras_pause_s
        self._extras_pause_s = EXTRAS_PERIOD_S
        # After the power reading, so that its timestamp stays that of the power alone.
        return reading._replace(**_extras(nvml, self._handle))

    def _read_usage(self) -> PowerSample:
        """Read power by the older call, which averages or not depending on the architecture."""
        milliwatts, timestamp_ns, latency_us = timed(lambda: self._nvml.nvmlDeviceGetPowerUsage(self._handle))
        if self._instant_usage:
            return PowerSample(timestamp_ns, latency_us, power_instant_w=milliwatts / 1e3)
        return PowerSample(timestamp_ns, latency_us, power_average_w=milliwatts / 1e3)


class ModuleChannel(SensorChannel):
    """Power of the superchip: GPU and Grace CPU with their memories. It contains `gpu`, so the two are never added."""

    def __init__(self, nvml: Any, card: Card) -> None:
        super().__init__("nvml", card.uuid, GPU_MODULE, "sampled")
        self._nvml = nvml
        self._handle = card.handle

    def read(self) -> PowerSample:
        """Read both powers of the module."""
        with mapped(self._nvml, f"module power of {self.device}"):
            reading = read_fields(self._nvml, self._handle, SCOPE_MODULE)
            if reading is None:
                raise self._nvml.NVMLError(self._nvml.NVML_ERROR_NOT_SUPPORTED)
        return reading


class CounterChannel(SensorChannel):
    """Energy in J since the driver was loaded: of the GPU, or of its module if the module's power can be read."""

    def __init__(self, nvml: Any, card: Card, domain: str) -> None:
        super().__init__("nvml", card.uuid, domain, "counter", period_s=COUNTER_PERIOD_S)
        self._nvml = nvml
        self._handle = card.handle

    def read(self) -> PowerSample:
        """Read the counter."""
        with mapped(self._nvml, f"energy counter of {self.device}"):
            millijoules, timestamp_ns, latency_us = timed(
                lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
            )
        return PowerSample(timestamp_ns, latency_us, energy_counter_j=millijoules / 1e3)


class MemoryChannel(SensorChannel):
    """The memory's part of the GPU's power; contained in `gpu`, so never added to it."""

    def __init__(self, nvml: Any, card: Card) -> None:
        super().__init__("nvml", card.uuid, "gpu_memory", "sampled")
        self._nvml = nvml
        self._handle = card.handle

    def read(self) -> PowerSample:
        """Read the average."""
        with mapped(self._nvml, f"memory power of {self.device}"):
            power_w, timestamp_ns, latency_us = timed(lambda: memory_power_w(self._nvml, self._handle))
        return PowerSample(timestamp_ns, latency_us, power_average_w=power_w)


class DriverLatency:
    """The driver's own latencies of field values, which NVML gives with each."""

    def __init__(self) -> None:
        self._count = self._sum_us = self._max_us = 0

    def add(self, latency_us: int) -> None:
        """Count one."""
        self._count += 1
        self._sum_us += latency_us
        self._max_us = max(self._max_us, latency_us)

    def diagnostics(self) -> dict[str, Any]:
        """Return mean and maximum in us; empty if there was none."""
        if not self._count:
            return {}
        return {"driver_latency_us": {"mean": round(self._sum_us / self._count, 3), "max": self._max_us}}


def read_fields(nvml: Any, handle: Any, scope: int, latency: DriverLatency | None = None) -> PowerSample | None:
    """Read average and instantaneous power of a scope; None if this driver or GPU does not know the fields.

    Args:
        nvml: the library.
        handle: the GPU.
        scope: which power.
        latency: counts the driver's latency.

    Raises:
        NVMLError: the fields are known, but cannot be read now.
    """
    fields = [(nvml.NVML_FI_DEV_POWER_AVERAGE, scope), (nvml.NVML_FI_DEV_POWER_INSTANT, scope)]
    before_ns = time.monotonic_ns()
    try:
        values = nvml.nvmlDeviceGetFieldValues(handle, fields)
    except nvml.NVMLError as error:
        if unsupported(nvml, error.value):
            return None
        raise
    after_ns = time.monotonic_ns()
    average, instant = values
    codes = average.nvmlReturn, instant.nvmlReturn
    ok = nvml.NVML_SUCCESS
    if ok not in codes:
        if all(unsupported(nvml, code) for code in codes):
            return None
        raise nvml.NVMLError(next(code for code in codes if not unsupported(nvml, code)))
    field = average if codes[0] == ok else instant
    if latency is not None:
        latency.add(int(field.latencyUsec))
    return PowerSample(
        timestamp_ns=(before_ns + after_ns) // 2,
        read_latency_us=(after_ns - before_ns) / 1e3,
        driver_timestamp_us=int(field.timestamp),
        power_average_w=average.value.uiVal / 1e3 if codes[0] == ok else None,
        power_instant_w=instant.value.uiVal / 1e3 if codes[1] == ok else None,
    )


def memory_power_w(nvml: Any, handle: Any) -> float:
    """Read the average power of the memory in W.

    Raises:
        NVMLError: it is not reported, or cannot be read now.
    """
    (value,) = nvml.nvmlDeviceGetFieldValues(handle, [(nvml.NVML_FI_DEV_POWER_AVERAGE, SCOPE_MEMORY)])
    if value.nvmlReturn != nvml.NVML_SUCCESS:
        raise nvml.NVMLError(value.nvmlReturn)
    return float(value.value.uiVal) / 1e3


def _extras(nvml: Any, handle: Any) -> dict[str, Any]:
    """Read the GPU's state. Unavailable parts stay null, so that the power reading beside them is kept."""
    calls: dict[str, Callable[[], Any]] = {
        "utilization": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        "memory_used_bytes": lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used),
        "sm_clock_mhz": lambda: int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        "temperature_c": lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        "clocks_event_reasons": lambda: int(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)),
    }
    state: dict[str, Any] = {}
    for column, call in calls.items():
        try:
            state[column] = call()
        except nvml.NVMLError:
            state[column] = None
    return state


SAMPLES_PERIOD_S = 0.6
"""The ring holds over two seconds, so a read may be a second late before a sample is lost. The period is shorter than
that because a killed sampler loses the samples that are still in the ring."""

OLDEST_S, NEWEST_S = 2.5, -0.1
"""Limits for the age of the newest sample [s]; beyond them the driver's clock is not this machine's."""

SAME_NS = 2_000_000
"""Two samples this close are one, read twice and placed with slightly different clock offsets."""

SILENT_LIMIT_S = 5.0


class SamplesChannel(SensorChannel):
    """The driver's samples of one GPU since the previous read.

    They show the same power as the domain `gpu`, so they have a domain of their own that is never added up. Each has
    the driver's timestamp, moved to the monotonic clock by the offset of the clocks at the time of the read.
    """

    def __init__(self, nvml: Any, handle: Any, device: str) -> None:
        super().__init__("nvml", device, GPU_SAMPLES, "sampled", period_s=SAMPLES_PERIOD_S)
        self.optional = True
        self._nvml = nvml
        self._handle = handle
        self._after_us = 0
        self._newest_ns = time.monotonic_ns()  # older samples in the ring are left out

    def read(self) -> PowerSample:
        """Return the newest sample.

        Raises:
            SourceError: there is no new one.
        """
        if samples := self.read_many():
            return samples[-1]
        raise SourceError(f"samples of {self.device}: none since the previous read")

    def read_many(self) -> list[PowerSample]:
        """Return all samples since the previous read, and none from before the channel was opened."""
        nvml = self._nvml
        before_ns = time.monotonic_ns()
        with mapped(nvml, f"samples of {self.device}"):
            try:
                _, samples = nvml.nvmlDeviceGetSamples(self._handle, nvml.NVML_TOTAL_POWER_SAMPLES, self._after_us)
            except nvml.NVMLError as error:
                if error.value != nvml.NVML_ERROR_NOT_FOUND:
                    raise
                samples = []
        after_ns = time.monotonic_ns()
        self._after_us = 0  # after a failure below the next read asks for all; SAME_NS keeps them from coming twice
        stamped = sorted((int(sample.timeStamp), int(sample.sampleValue.uiVal)) for sample in samples)
        stamped = [(time_us, milliwatts) for time_us, milliwatts in stamped if time_us]
        if not stamped:
            self._check_silence(after_ns)
            return []
        anchor = clock_anchor()
        offset_ns = anchor["unix_ns"] - anchor["monotonic_ns"]
        age_s = (after_ns + offset_ns) / 1e9 - stamped[-1][0] / 1e6
        if not NEWEST_S <= age_s <= OLDEST_S:
            raise SourceError(
                f"samples of {self.device}: the newest is {age_s:.1f} s old by the wall clock, so the driver's clock "
                "is not this machine's and they cannot be placed in time"
            )
        self._after_us = stamped[-1][0]
        latency_us = (after_ns - before_ns) / 1e3
        readings = [
            PowerSample(time_us * 1000 - offset_ns, latency_us, time_us, power_instant_w=milliwatts / 1e3)
            for time_us, milliwatts in stamped
            if time_us * 1000 - offset_ns > self._newest_ns + SAME_NS
        ]
        if readings:
            self._newest_ns = readings[-1].timestamp_ns
        return readings

    def _check_silence(self, now_ns: int) -> None:
        silent_s = (now_ns - self._newest_ns) / 1e9
        if silent_s > SILENT_LIMIT_S:
            raise SourceError(f"samples of {self.device}: the driver has added none for {silent_s:.0f} s")
