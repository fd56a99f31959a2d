"""A stand-in for the module pynvml: GPUs with known power, and errors that come and go.

Constants and the exception are pynvml's own, so that the code under test meets the real numbers.
"""

# ruff: noqa: N802 - the functions have pynvml's names

from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml


@dataclass
class FakeGpu:
    """A GPU. A capability that is False answers as hardware without it does."""

    uuid: str
    name: str = "NVIDIA H100 80GB HBM3"
    average_w: float = 100.0
    instant_w: float = 110.0
    memory_w: float | None = 35.0
    energy_mj: int = 1_000_000
    capability: tuple[int, int] = (9, 0)
    cores: int = 16896
    has_fields: bool = True
    has_average: bool = True
    has_instant: bool = True
    field_error: int | None = None
    has_counter: bool = True
    module_w: float | None = None
    """Power of the superchip; None where the GPU is not part of one."""
    mig: bool | None = False
    instances: list["FakeInstance"] = field(default_factory=list)
    ring: list[tuple[int, float]] | None = None
    """(us, W) of the driver's samples; None where there is no ring."""
    pids: list[int] | None = None
    """Processes that compute; None where the GPU cannot tell."""


@dataclass
class FakeInstance:
    """A MIG device of a GPU; `pids` None where its processes may not be seen."""

    uuid: str
    profile: str = "1g.10gb"
    pids: list[int] | None = field(default_factory=list)
    visible: bool = True


@dataclass
class FakeNvml:
    """`fail` maps a function's name to the error codes of its next calls; None lets a call through."""

    gpus: list[FakeGpu]
    broken: int | None = None
    fail: dict[str, deque[int | None]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    sessions: int = 0

    NVMLError = pynvml.NVMLError

    def __getattr__(self, name: str) -> Any:
        if name.startswith("NVML_"):
            return getattr(pynvml, name)
        raise AttributeError(name)

    def _enter(self, function: str) -> None:
        self.calls.append(function)
        if self.sessions == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
        pending = self.fail.get(function)
        code = pending.popleft() if pending else None
        if code is not None:
            raise pynvml.NVMLError(code)

    @staticmethod
    def _require(present: object) -> None:
        if not present:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlInit(self) -> None:
        if self.broken is not None:
            raise pynvml.NVMLError(self.broken)
        self.sessions += 1

    def nvmlShutdown(self) -> None:
        self._enter("nvmlShutdown")
        self.sessions -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.159.03"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        self._enter("nvmlSystemGetCudaDriverVersion_v2")
        return 13010

    def nvmlDeviceGetCount(self) -> int:
        self._enter("nvmlDeviceGetCount")
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, gpu: FakeGpu | FakeInstance) -> str:
        return gpu.uuid

    def nvmlDeviceGetName(self, gpu: FakeGpu | FakeInstance) -> str:
        return f"NVIDIA H100 80GB HBM3 MIG {gpu.profile}" if isinstance(gpu, FakeInstance) else gpu.name

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu | FakeInstance:
        for one in [*self.gpus, *(instance for gpu in self.gpus for instance in gpu.instances)]:
            if one.uuid == uuid:
                return one
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: FakeGpu) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: FakeGpu, index: int) -> FakeInstance:
        if index >= len(gpu.instances):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        if not gpu.instances[index].visible:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        return gpu.instances[index]

    def nvmlDeviceGetFieldValues(self, gpu: FakeGpu, fields: list[Any]) -> Any:
        """A ctypes array as pynvml returns it: each access to an element makes a new object."""
        self._enter("nvmlDeviceGetFieldValues")
        values = (pynvml.c_nvmlFieldValue_t * len(fields))()
        for value, wanted in zip(values, fields, strict=True):
            watts = self._field_w(gpu, *(wanted if isinstance(wanted, tuple) else (wanted, 0)))
            value.nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED if watts is None else pynvml.NVML_SUCCESS
            if gpu.field_error is not None:
                value.nvmlReturn = gpu.field_error
            value.value.uiVal = round((watts or 0) * 1000)
            value.timestamp = 1_700_000_000_000_000
            value.latencyUsec = 12
        return values

    @staticmethod
    def _field_w(gpu: FakeGpu, number: int, scope: int) -> float | None:
        watts = {
            (pynvml.NVML_FI_DEV_POWER_AVERAGE, 0): gpu.average_w if gpu.has_average else None,
            (pynvml.NVML_FI_DEV_POWER_INSTANT, 0): gpu.instant_w if gpu.has_instant else None,
            (pynvml.NVML_FI_DEV_POWER_AVERAGE, 1): gpu.module_w,
            (pynvml.NVML_FI_DEV_POWER_INSTANT, 1): gpu.module_w,
            (pynvml.NVML_FI_DEV_POWER_AVERAGE, 2): gpu.memory_w,
        }
        return watts.get((number, scope)) if gpu.has_fields else None

    def nvmlDeviceGetPowerUsage(self, gpu: FakeGpu) -> int:
        self._enter("nvmlDeviceGetPowerUsage")
        return round(gpu.average_w * 1000)

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: FakeGpu) -> int:
        self._enter("nvmlDeviceGetTotalEnergyConsumption")
        self._require(gpu.has_counter)
        gpu.energy_mj += 50_000
        return gpu.energy_mj

    def nvmlDeviceGetSamples(self, gpu: FakeGpu, kind: int, after_us: int) -> tuple[int, Any]:
        self._enter("nvmlDeviceGetSamples")
        self._require(gpu.ring is not None and kind == pynvml.NVML_TOTAL_POWER_SAMPLES)
        later = [(time_us, power_w) for time_us, power_w in gpu.ring or [] if time_us > after_us]
        if not later:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        samples = (pynvml.c_nvmlSample_t * len(later))()
        for sample, (time_us, power_w) in zip(samples, later, strict=True):
            sample.timeStamp = time_us
            sample.sampleValue.uiVal = round(power_w * 1000)
        return pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, samples

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu | FakeInstance) -> list[SimpleNamespace]:
        self._enter("nvmlDeviceGetComputeRunningProcesses")
        if gpu.pids is None and (isinstance(gpu, FakeInstance) or gpu.mig):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        self._require(gpu.pids is not None)
        return [SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in gpu.pids or []]

    def nvmlDeviceGetUtilizationRates(self, gpu: FakeGpu) -> SimpleNamespace:
        self._enter("nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=73, memory=20)

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> SimpleNamespace:
        self._enter("nvmlDeviceGetMemoryInfo")
        return SimpleNamespace(total=85_899_345_920, used=70_000_000_000, free=15_899_345_920)

    def nvmlDeviceGetClockInfo(self, gpu: FakeGpu, kind: int) -> int:
        return 1755 if kind == pynvml.NVML_CLOCK_SM else 2619

    def nvmlDeviceGetMaxClockInfo(self, gpu: FakeGpu, kind: int) -> int:
        return 1980 if kind == pynvml.NVML_CLOCK_SM else 2619

    def nvmlDeviceGetTemperature(self, gpu: FakeGpu, sensor: int) -> int:
        self._enter("nvmlDeviceGetTemperature")
        return 61

    def nvmlDeviceGetCurrentClocksEventReasons(self, gpu: FakeGpu) -> int:
        return 4  # SwPowerCap

    def nvmlDeviceGetCudaComputeCapability(self, gpu: FakeGpu) -> list[int]:
        return list(gpu.capability)

    def nvmlDeviceGetNumGpuCores(self, gpu: FakeGpu) -> int:
        return gpu.cores

    def nvmlDeviceGetVbiosVersion(self, gpu: FakeGpu) -> str:
        return "96.00.89.00.01"

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: FakeGpu) -> int:
        return 650_000

    def nvmlDeviceGetPowerManagementDefaultLimit(self, gpu: FakeGpu) -> int:
        return 700_000

    def nvmlDeviceGetPowerManagementLimitConstraints(self, gpu: FakeGpu) -> list[int]:
        return [200_000, 700_000]

    def nvmlDeviceGetEccMode(self, gpu: FakeGpu) -> list[int]:
        return [1, 1]

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:
        self._require(gpu.mig is not None)
        return [int(bool(gpu.mig)), 0]

    def nvmlDeviceGetPersistenceMode(self, gpu: FakeGpu) -> int:
        return 1
