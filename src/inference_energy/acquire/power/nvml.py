"""GPU power through NVML, NVIDIA's management library (package nvidia-ml-py, module pynvml).

Each GPU has a fast channel (power, and every second utilisation, memory, clock, temperature and throttle reasons), a
slow one for its energy counter, whose call costs milliseconds, one for its memory's power where that is reported, one
for the driver's own samples, and one that watches for other users where it is known whose GPU it is.
Field numbers and scopes: NVML API reference, "Field Value Enums" and nvmlDeviceGetFieldValues.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from inference_energy.acquire.power.base import Channel, PowerSource, Reading, SourceError, SourceState, timed
from inference_energy.acquire.power.nvml_errors import mapped, source_error, supported, unsupported
from inference_energy.acquire.power.nvml_processes import ProcessesChannel, ServerPid
from inference_energy.acquire.power.nvml_samples import SamplesChannel

COUNTER_PERIOD_S = 0.5
EXTRAS_PERIOD_S = 1.0
MEMORY_SCOPE = 2  # NVML_POWER_SCOPE_MEMORY


class NvmlSource(PowerSource):
    """The NVIDIA GPUs of this machine.

    Args:
        gpus: UUIDs (a beginning is enough) or NVML indices; None for all, an empty list for none.
        nvml: the module to use in place of pynvml.
        server_pid: gives the server's process, whose GPUs these are while they are sampled; None where there is no
            saying whose they are, and then other processes are not looked for.
    """

    name = "nvml"

    def __init__(
        self, gpus: Sequence[str | int] | None = None, nvml: Any = None, server_pid: ServerPid | None = None
    ) -> None:
        self._gpus = None if gpus is None else list(gpus)
        self._nvml = nvml
        self._server_pid = server_pid
        self._grade = "counter"
        self._opened = False

    @property
    def grade(self) -> str:
        """`counter`, or `sampled` once the GPUs turned out to have no energy counter."""
        return self._grade

    @property
    def demanded_by(self) -> str | None:
        """`power.gpus` where GPUs were named."""
        return "power.gpus" if self._gpus else None

    def state(self) -> SourceState:
        """Name the GPUs, or say why there are none."""
        try:
            with self._session() as nvml:
                devices = [device for device, _ in self._select(nvml)]
        except SourceError as error:
            return SourceState(self.name, False, str(error), [])
        return SourceState(self.name, True, f"{len(devices)} NVIDIA GPU(s)", devices)

    def channels(self) -> list[Channel]:
        """Open NVML and make the channels of the selected GPUs."""
        nvml = self._load()
        with mapped(nvml, "nvmlInit"):
            nvml.nvmlInit()
        self._opened = True
        try:
            channels: list[Channel] = []
            counters = 0
            selected = self._select(nvml)
            for place, (device, handle) in enumerate(selected):
                channels.append(_GpuChannel(nvml, handle, device, place / len(selected)))
                if supported(nvml, partial(nvml.nvmlDeviceGetTotalEnergyConsumption, handle)):
                    channels.append(_CounterChannel(nvml, handle, device))
                    counters += 1
                if supported(nvml, partial(_memory_power_w, nvml, handle)):
                    channels.append(_MemoryChannel(nvml, handle, device))
                channels += self._optional(nvml, handle, device)
        except SourceError:
            self.close()
            raise
        self._grade = "counter" if counters else "sampled"
        return channels

    def close(self) -> None:
        """Shut NVML down."""
        if self._opened:
            self._opened = False
            nvml = self._load()
            with mapped(nvml, "nvmlShutdown"):
                nvml.nvmlShutdown()

    def _optional(self, nvml: Any, handle: Any, device: str) -> list[Channel]:
        """What helps to judge the power but is not needed to measure it."""
        found: list[Channel] = []
        try:
            nvml.nvmlDeviceGetSamples(handle, nvml.NVML_TOTAL_POWER_SAMPLES, 0)
            found.append(SamplesChannel(nvml, handle, device))
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_NOT_FOUND:
                found.append(SamplesChannel(nvml, handle, device))
        if self._server_pid is not None and supported(nvml, partial(nvml.nvmlDeviceGetComputeRunningProcesses, handle)):
            found.append(ProcessesChannel(nvml, handle, device, self._server_pid))
        return found

    def _load(self) -> Any:
        if self._nvml is None:
            try:
                import pynvml  # here, because a machine without it can still use the other sources
            except ImportError as error:
                raise SourceError("the Python package nvidia-ml-py is missing: install it") from error
            self._nvml = pynvml
        return self._nvml

    @contextmanager
    def _session(self) -> Iterator[Any]:
        nvml = self._load()
        with mapped(nvml, "nvmlInit"):
            nvml.nvmlInit()
        try:
            yield nvml
        finally:
            with mapped(nvml, "nvmlShutdown"):
                nvml.nvmlShutdown()

    def _select(self, nvml: Any) -> list[tuple[str, Any]]:
        """(UUID, handle) of each GPU asked for, each once."""
        if self._gpus == []:
            raise SourceError("power.gpus is an empty list, which asks for no GPU: write null for all")
        with mapped(nvml, "listing the GPUs"):
            handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
            present = [(str(nvml.nvmlDeviceGetUUID(handle)), handle) for handle in handles]
        if not present:
            raise SourceError("the NVIDIA driver works but shows no GPU")
        if self._gpus is None:
            return present
        return list(dict(_pick(wanted, present) for wanted in self._gpus).items())


def _pick(wanted: str | int, present: list[tuple[str, Any]]) -> tuple[str, Any]:
    if str(wanted).startswith("MIG-"):
        raise SourceError(f"{wanted} is a MIG slice, which has only its board's power: name the whole GPU")
    if str(wanted).isdigit():
        found = present[int(wanted) : int(wanted) + 1]
    else:
        found = [(uuid, handle) for uuid, handle in present if uuid.startswith(str(wanted))]
    if len(found) != 1:
        names = ", ".join(f"{index}: {uuid}" for index, (uuid, _) in enumerate(present))
        trouble = "no GPU" if not found else f"{len(found)} GPUs"
        raise SourceError(f"{trouble} here match(es) {wanted!r}; write an index or a UUID of: {names}")
    return found[0]


class _GpuChannel(Channel):
    """Board power, and every second the state that explains it.

    `turn`, from 0 to below 1, sets the GPUs' states apart in time: all in one round of polls would take too long.
    """

    def __init__(self, nvml: Any, handle: Any, device: str, turn: float = 0.0) -> None:
        super().__init__("nvml", device, "gpu", "sampled")
        self._nvml = nvml
        self._handle = handle
        self._has_fields = True
        self._extras_due_s = 0.0
        self._extras_pause_s = EXTRAS_PERIOD_S * (1.0 - turn)

    def read(self) -> Reading:
        nvml = self._nvml
        try:
            reading = self._read_fields() if self._has_fields else None
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
        return replace(reading, **_extras(nvml, self._handle))

    def _read_fields(self) -> Reading | None:
        """Power by field values; None where this driver or GPU does not know them."""
        nvml = self._nvml
        fields = [nvml.NVML_FI_DEV_POWER_AVERAGE, nvml.NVML_FI_DEV_POWER_INSTANT]
        before_ns = time.monotonic_ns()
        try:
            values = nvml.nvmlDeviceGetFieldValues(self._handle, fields)
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
        return Reading(
            timestamp_ns=(before_ns + after_ns) // 2,
            read_latency_us=(after_ns - before_ns) / 1e3,
            driver_timestamp_us=int((average if codes[0] == ok else instant).timestamp),
            power_average_w=average.value.uiVal / 1e3 if codes[0] == ok else None,
            power_instant_w=instant.value.uiVal / 1e3 if codes[1] == ok else None,
        )

    def _read_usage(self) -> Reading:
        """Power by the older call: a 1 s average from Ampere on, instantaneous on GA100 and before (NVML reference)."""
        nvml = self._nvml
        milliwatts, timestamp_ns, latency_us = timed(lambda: nvml.nvmlDeviceGetPowerUsage(self._handle))
        if tuple(nvml.nvmlDeviceGetCudaComputeCapability(self._handle)) > (8, 0):
            return Reading(timestamp_ns, latency_us, power_average_w=milliwatts / 1e3)
        return Reading(timestamp_ns, latency_us, power_instant_w=milliwatts / 1e3)


class _CounterChannel(Channel):
    """The board's energy since the driver was loaded."""

    def __init__(self, nvml: Any, handle: Any, device: str) -> None:
        super().__init__("nvml", device, "gpu", "counter", period_s=COUNTER_PERIOD_S)
        self._nvml = nvml
        self._handle = handle

    def read(self) -> Reading:
        with mapped(self._nvml, f"energy counter of {self.device}"):
            millijoules, timestamp_ns, latency_us = timed(
                lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
            )
        return Reading(timestamp_ns, latency_us, energy_counter_j=millijoules / 1e3)


class _MemoryChannel(Channel):
    """The memory's share of the board power; contained in `gpu`, so never added to it."""

    def __init__(self, nvml: Any, handle: Any, device: str) -> None:
        super().__init__("nvml", device, "gpu_memory", "sampled")
        self._nvml = nvml
        self._handle = handle

    def read(self) -> Reading:
        with mapped(self._nvml, f"memory power of {self.device}"):
            power_w, timestamp_ns, latency_us = timed(lambda: _memory_power_w(self._nvml, self._handle))
        return Reading(timestamp_ns, latency_us, power_average_w=power_w)


def _memory_power_w(nvml: Any, handle: Any) -> float:
    field = (nvml.NVML_FI_DEV_POWER_AVERAGE, MEMORY_SCOPE)
    (value,) = nvml.nvmlDeviceGetFieldValues(handle, [field])
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
