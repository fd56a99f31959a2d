"""What is read of one NVIDIA GPU: its power and state, its energy counter, and the power of its memory or superchip.

Field numbers and scopes: NVML API reference, "Field Value Enums" and nvmlDeviceGetFieldValues. A scope is the GPU (its
board, where it has one), the module, or the memory. Where the module's power can be read, the energy counter is the
module's too, as found on GH200 (Zeus, pull request 172).
"""

import time
from collections.abc import Callable
from typing import Any

from inference_energy.acquire.power.base import Channel, Reading, timed
from inference_energy.acquire.power.sources.averaging import usage_window_s
from inference_energy.acquire.power.sources.nvml.device import Card
from inference_energy.acquire.power.sources.nvml.errors import mapped, source_error, unsupported
from inference_energy.contracts.power import GPU_MODULE

COUNTER_PERIOD_S = 0.5
EXTRAS_PERIOD_S = 1.0
SCOPE_GPU, SCOPE_MODULE, SCOPE_MEMORY = 0, 1, 2
"""NVML_POWER_SCOPE_GPU and so on."""


class PowerChannel(Channel):
    """The GPU's power, and every second the state that explains it.

    `turn`, from 0 to below 1, sets the GPUs' states apart in time: all in one round of polls would take too long.
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

    def notes(self) -> dict[str, Any]:
        """`driver_latency_us`: how long the driver says that it took to get the values, `mean` and `max`."""
        return self._latency.notes()

    def read(self) -> Reading:
        """Both powers, and the state once a second."""
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

    def _read_usage(self) -> Reading:
        """Power by the older call, which is an average or not by the architecture."""
        milliwatts, timestamp_ns, latency_us = timed(lambda: self._nvml.nvmlDeviceGetPowerUsage(self._handle))
        if self._instant_usage:
            return Reading(timestamp_ns, latency_us, power_instant_w=milliwatts / 1e3)
        return Reading(timestamp_ns, latency_us, power_average_w=milliwatts / 1e3)


class ModuleChannel(Channel):
    """The power of the superchip: GPU and its memory, Grace CPU and its memory. It holds `gpu`: never added to it."""

    def __init__(self, nvml: Any, card: Card) -> None:
        super().__init__("nvml", card.uuid, GPU_MODULE, "sampled")
        self._nvml = nvml
        self._handle = card.handle

    def read(self) -> Reading:
        """Both powers of the module."""
        with mapped(self._nvml, f"module power of {self.device}"):
            reading = read_fields(self._nvml, self._handle, SCOPE_MODULE)
            if reading is None:
                raise self._nvml.NVMLError(self._nvml.NVML_ERROR_NOT_SUPPORTED)
        return reading


class CounterChannel(Channel):
    """Energy since the driver was loaded, in J: the GPU's, or its module's where that has power of its own."""

    def __init__(self, nvml: Any, card: Card, domain: str) -> None:
        super().__init__("nvml", card.uuid, domain, "counter", period_s=COUNTER_PERIOD_S)
        self._nvml = nvml
        self._handle = card.handle

    def read(self) -> Reading:
        """The counter."""
        with mapped(self._nvml, f"energy counter of {self.device}"):
            millijoules, timestamp_ns, latency_us = timed(
                lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
            )
        return Reading(timestamp_ns, latency_us, energy_counter_j=millijoules / 1e3)


class MemoryChannel(Channel):
    """The memory's share of the GPU's power; contained in `gpu`, so never added to it."""

    def __init__(self, nvml: Any, card: Card) -> None:
        super().__init__("nvml", card.uuid, "gpu_memory", "sampled")
        self._nvml = nvml
        self._handle = card.handle

    def read(self) -> Reading:
        """The average."""
        with mapped(self._nvml, f"memory power of {self.device}"):
            power_w, timestamp_ns, latency_us = timed(lambda: memory_power_w(self._nvml, self._handle))
        return Reading(timestamp_ns, latency_us, power_average_w=power_w)


class DriverLatency:
    """The driver's own latencies of field values, which NVML gives with each."""

    def __init__(self) -> None:
        self._count = self._sum_us = self._max_us = 0

    def add(self, latency_us: int) -> None:
        """Count one."""
        self._count += 1
        self._sum_us += latency_us
        self._max_us = max(self._max_us, latency_us)

    def notes(self) -> dict[str, Any]:
        """Their mean and largest in us; empty where there was none."""
        if not self._count:
            return {}
        return {"driver_latency_us": {"mean": round(self._sum_us / self._count, 3), "max": self._max_us}}


def read_fields(nvml: Any, handle: Any, scope: int, latency: DriverLatency | None = None) -> Reading | None:
    """Average and instantaneous power of a scope by field values; None where this driver or GPU does not know them.

    Args:
        nvml: the library.
        handle: the GPU.
        scope: which power.
        latency: counts the driver's latency.

    Raises:
        NVMLError: they are known, but cannot be had now.
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
    told = average if codes[0] == ok else instant
    if latency is not None:
        latency.add(int(told.latencyUsec))
    return Reading(
        timestamp_ns=(before_ns + after_ns) // 2,
        read_latency_us=(after_ns - before_ns) / 1e3,
        driver_timestamp_us=int(told.timestamp),
        power_average_w=average.value.uiVal / 1e3 if codes[0] == ok else None,
        power_instant_w=instant.value.uiVal / 1e3 if codes[1] == ok else None,
    )


def memory_power_w(nvml: Any, handle: Any) -> float:
    """Average power of the memory in W.

    Raises:
        NVMLError: it is not reported, or not now.
    """
    (value,) = nvml.nvmlDeviceGetFieldValues(handle, [(nvml.NVML_FI_DEV_POWER_AVERAGE, SCOPE_MEMORY)])
    if value.nvmlReturn != nvml.NVML_SUCCESS:
        raise nvml.NVMLError(value.nvmlReturn)
    return float(value.value.uiVal) / 1e3


def _extras(nvml: Any, handle: Any) -> dict[str, Any]:
    """The GPU's state. What cannot be had stays null: it must not cost the power reading beside it."""
    calls: dict[str, Callable[[], Any]] = {
        "utilization": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        "memory_used_bytes": lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used),
        "sm_clock_mhz": lambda: int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        "temperature_c": lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        "clocks_event_reasons": lambda: int(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)),
    }
    found: dict[str, Any] = {}
    for column, call in calls.items():
        try:
            found[column] = call()
        except nvml.NVMLError:
            found[column] = None
    return found
