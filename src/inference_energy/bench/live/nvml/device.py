"""NVML's functions for GPUs: identity, state, power and energy. Results have the types that pynvml gives."""

import math
from collections.abc import Iterator, Sequence
from ctypes import Array
from types import SimpleNamespace

from inference_energy.bench.live.nvml import names
from inference_energy.bench.live.nvml.driver import Identity, VirtualGpu
from inference_energy.bench.live.nvml.session import argument, checked, open_driver
from inference_energy.bench.sensors.nvml import FieldReadings

# ruff: noqa: N802 - pynvml's own names

DRIVER_VERSION = "simulated"
CUDA_VERSION = 13000


def nvmlDeviceGetPowerUsage(handle: VirtualGpu) -> int:
    """The 1 s average in mW, or the instant on a GPU that has no average."""
    readings = checked(handle).fields()
    return _milli(float((readings.average_w if handle.has_average else readings.instant_w)[0]))


def nvmlDeviceGetTotalEnergyConsumption(handle: VirtualGpu) -> int:
    """Energy since the driver was loaded in mJ."""
    if not checked(handle).has_counter:
        raise names.NVMLError(names.NVML_ERROR_NOT_SUPPORTED)
    return _milli(handle.counter_j())


def nvmlDeviceGetSamples(handle: VirtualGpu, kind: int, after_us: int) -> tuple[int, list[names.c_nvmlSample_t]]:
    """The driver's ring of power samples: the type of their values, and those later than `after_us`."""
    if kind != names.NVML_TOTAL_POWER_SAMPLES:
        raise names.NVMLError(names.NVML_ERROR_NOT_SUPPORTED)
    samples = []
    for time_us, power_w in checked(handle).ring(after_us):
        sample = names.c_nvmlSample_t(timeStamp=time_us)
        sample.sampleValue.uiVal = _milli(power_w)
        samples.append(sample)
    if not samples:
        raise names.NVMLError(names.NVML_ERROR_NOT_FOUND)
    return names.NVML_VALUE_TYPE_UNSIGNED_INT, samples


def nvmlDeviceGetFieldValues(
    handle: VirtualGpu, fields: Sequence[int | tuple[int, int]]
) -> Array[names.c_nvmlFieldValue_t]:
    """Field values, each with its own return code. A field is a number, or a number and a scope."""
    checked(handle)
    values = (names.c_nvmlFieldValue_t * len(fields))()
    readings = handle.fields()
    for value, field in zip(values, fields, strict=True):
        value.fieldId, value.scopeId = field if isinstance(field, tuple) else (field, names.NVML_POWER_SCOPE_GPU)
        value.timestamp = int(readings.driver_timestamp_us[0])
        _fill(handle, readings, value)
    return values


def nvmlDeviceGetPowerManagementLimit(handle: VirtualGpu) -> int:
    """The limit that was set, in mW."""
    return round(checked(handle).device.power_limit_w * 1e3)


def nvmlDeviceGetEnforcedPowerLimit(handle: VirtualGpu) -> int:
    """The limit in force, in mW."""
    return nvmlDeviceGetPowerManagementLimit(handle)


def nvmlDeviceGetPowerManagementDefaultLimit(handle: VirtualGpu) -> int:
    """The limit it came with, in mW."""
    return round(checked(handle).default_limit_w * 1e3)


def nvmlDeviceGetPowerManagementLimitConstraints(handle: VirtualGpu) -> list[int]:
    """The lowest and the highest limit that can be set, in mW."""
    highest = nvmlDeviceGetPowerManagementDefaultLimit(handle)
    return [min(round(highest * 2 / 7), nvmlDeviceGetPowerManagementLimit(handle)), highest]


def _fill(handle: VirtualGpu, readings: FieldReadings, value: names.c_nvmlFieldValue_t) -> None:
    """Put in the answer to one field, or why there is none."""
    try:
        if value.fieldId == names.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION:
            value.valueType = names.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
            value.value.ullVal = nvmlDeviceGetTotalEnergyConsumption(handle)
        else:
            value.valueType = names.NVML_VALUE_TYPE_UNSIGNED_INT
            value.value.uiVal = _power_field_mw(handle, readings, value.fieldId, value.scopeId)
    except names.NVMLError as error:
        value.nvmlReturn = error.value


def _power_field_mw(handle: VirtualGpu, readings: FieldReadings, field: int, scope: int) -> int:
    """A power or a limit in mW; scopes other than the GPU's have only the memory's average."""
    if field == names.NVML_FI_DEV_POWER_AVERAGE and not handle.has_average:
        raise names.NVMLError(names.NVML_ERROR_NOT_SUPPORTED)
    if scope == names.NVML_POWER_SCOPE_MEMORY and field == names.NVML_FI_DEV_POWER_AVERAGE:
        return _milli(float(handle.memory_power_w(readings.average_w)[0]))
    if scope == names.NVML_POWER_SCOPE_GPU:
        if field == names.NVML_FI_DEV_POWER_AVERAGE:
            return _milli(float(readings.average_w[0]))
        if field == names.NVML_FI_DEV_POWER_INSTANT and handle.has_instant:
            return _milli(float(readings.instant_w[0]))
        limits = {
            names.NVML_FI_DEV_POWER_MIN_LIMIT: lambda: nvmlDeviceGetPowerManagementLimitConstraints(handle)[0],
            names.NVML_FI_DEV_POWER_MAX_LIMIT: lambda: nvmlDeviceGetPowerManagementLimitConstraints(handle)[1],
            names.NVML_FI_DEV_POWER_DEFAULT_LIMIT: lambda: nvmlDeviceGetPowerManagementDefaultLimit(handle),
            names.NVML_FI_DEV_POWER_CURRENT_LIMIT: lambda: nvmlDeviceGetEnforcedPowerLimit(handle),
        }
        if field in limits:
            return limits[field]()
    raise names.NVMLError(names.NVML_ERROR_NOT_SUPPORTED)


def _milli(value: float) -> int:
    """Thousandths; a reading that failed is an error."""
    if math.isnan(value):
        raise names.NVMLError(names.NVML_ERROR_UNKNOWN)
    return round(value * 1e3)


def nvmlSystemGetDriverVersion() -> str:
    """Says that there is no driver."""
    open_driver()
    return DRIVER_VERSION


def nvmlSystemGetNVMLVersion() -> str:
    """As the driver's."""
    return nvmlSystemGetDriverVersion()


def nvmlSystemGetCudaDriverVersion() -> int:
    """1000 times the major version of CUDA and 10 times the minor one."""
    open_driver()
    return CUDA_VERSION


def nvmlSystemGetCudaDriverVersion_v2() -> int:
    """As without _v2."""
    return nvmlSystemGetCudaDriverVersion()


def nvmlSystemGetProcessName(pid: int) -> str:
    """The name of a process on a GPU."""
    driver = open_driver()
    if any(process.pid == pid for gpu in driver.gpus for process in gpu.processes()):
        tenants = {tenant.pid for tenant in driver.node.faults.tenants}
        return "tenant (simulated)" if pid in tenants else "vllm (simulated)"
    raise names.NVMLError(names.NVML_ERROR_NOT_FOUND)


def nvmlDeviceGetCount() -> int:
    """GPUs of the node."""
    return len(open_driver().gpus)


def nvmlDeviceGetHandleByIndex(index: int) -> VirtualGpu:
    """The GPU with a number."""
    gpus = open_driver().gpus
    if not 0 <= index < len(gpus):
        raise names.NVMLError(names.NVML_ERROR_INVALID_ARGUMENT)
    return gpus[index]


def nvmlDeviceGetHandleByUUID(uuid: str | bytes) -> VirtualGpu:
    """The GPU with a UUID."""
    text = uuid.decode() if isinstance(uuid, bytes) else uuid
    return _only(gpu for gpu in open_driver().gpus if gpu.uuid == text)


def nvmlDeviceGetHandleByPciBusId(bus_id: str | bytes) -> VirtualGpu:
    """The GPU at a place on the bus."""
    text = bus_id.decode() if isinstance(bus_id, bytes) else bus_id
    return _only(gpu for gpu in open_driver().gpus if nvmlDeviceGetPciInfo(gpu).busId == text)


def nvmlDeviceGetIndex(handle: VirtualGpu) -> int:
    """Its number."""
    return checked(handle).index


def nvmlDeviceGetName(handle: VirtualGpu) -> str:
    """Its name, which says that it is simulated."""
    return f"{checked(handle).device.label} (simulated)"


def nvmlDeviceGetUUID(handle: VirtualGpu) -> str:
    """Its UUID."""
    return checked(handle).uuid


def nvmlDeviceGetVbiosVersion(handle: VirtualGpu) -> str:
    """It has none."""
    checked(handle)
    return DRIVER_VERSION


def nvmlDeviceGetPciInfo(handle: VirtualGpu) -> SimpleNamespace:
    """Its place on the bus, one bus a GPU."""
    bus = 0x10 + checked(handle).index
    return SimpleNamespace(
        domain=0,
        bus=bus,
        device=0,
        pciDeviceId=_identity(handle).pci_device_id,
        pciSubSystemId=0,
        busId=f"00000000:{bus:02X}:00.0",
        busIdLegacy=f"0000:{bus:02X}:00.0",
    )


def nvmlDeviceGetCudaComputeCapability(handle: VirtualGpu) -> tuple[int, int]:
    """Major and minor version."""
    return _identity(handle).compute_capability


def nvmlDeviceGetNumGpuCores(handle: VirtualGpu) -> int:
    """FP32 cores."""
    return _identity(handle).cores


def nvmlDeviceGetMemoryInfo(handle: VirtualGpu, version: int | None = None) -> SimpleNamespace:
    """`total`, `used` and `free` in bytes."""
    total = int(checked(handle).device.memory_bytes)
    used = min(total, handle.used_bytes())
    return SimpleNamespace(total=total, used=used, free=total - used)


def nvmlDeviceGetUtilizationRates(handle: VirtualGpu) -> SimpleNamespace:
    """Percent of the last second in which a step ran; each step reads memory all along."""
    percent = round(100 * checked(handle).utilization())
    return SimpleNamespace(gpu=percent, memory=percent)


def nvmlDeviceGetTemperature(handle: VirtualGpu, sensor: int) -> int:
    """Degrees Celsius."""
    argument(sensor == names.NVML_TEMPERATURE_GPU)
    return round(checked(handle).temperature_c())


def nvmlDeviceGetClockInfo(handle: VirtualGpu, kind: int) -> int:
    """MHz now."""
    if kind == names.NVML_CLOCK_MEM:
        return _identity(handle).memory_clock_mhz
    argument(names.NVML_CLOCK_GRAPHICS <= kind <= names.NVML_CLOCK_VIDEO)
    return checked(handle).sm_clock_mhz()


def nvmlDeviceGetMaxClockInfo(handle: VirtualGpu, kind: int) -> int:
    """MHz at most."""
    if kind == names.NVML_CLOCK_MEM:
        return _identity(handle).memory_clock_mhz
    argument(names.NVML_CLOCK_GRAPHICS <= kind <= names.NVML_CLOCK_VIDEO)
    return checked(handle).device.sm_clock_mhz


def nvmlDeviceGetCurrentClocksEventReasons(handle: VirtualGpu) -> int:
    """Why clocks are not higher, as bits."""
    return checked(handle).events()


def nvmlDeviceGetCurrentClocksThrottleReasons(handle: VirtualGpu) -> int:
    """The same by its older name."""
    return nvmlDeviceGetCurrentClocksEventReasons(handle)


def nvmlDeviceGetPowerState(handle: VirtualGpu) -> int:
    """P0, as a GPU with ECC memory stays in."""
    checked(handle)
    return names.NVML_PSTATE_0


def nvmlDeviceGetEccMode(handle: VirtualGpu) -> list[int]:
    """On, now and after the next start."""
    checked(handle)
    return [names.NVML_FEATURE_ENABLED, names.NVML_FEATURE_ENABLED]


def nvmlDeviceGetMigMode(handle: VirtualGpu) -> list[int]:
    """Off, now and after the next start."""
    checked(handle)
    return [names.NVML_DEVICE_MIG_DISABLE, names.NVML_DEVICE_MIG_DISABLE]


def nvmlDeviceGetPersistenceMode(handle: VirtualGpu) -> int:
    """On."""
    checked(handle)
    return names.NVML_FEATURE_ENABLED


def nvmlDeviceGetComputeRunningProcesses(handle: VirtualGpu) -> list[SimpleNamespace]:
    """The living server and other users of the GPU."""
    return [
        SimpleNamespace(pid=process.pid, usedGpuMemory=process.used_bytes, gpuInstanceId=None, computeInstanceId=None)
        for process in checked(handle).processes()
    ]


def nvmlDeviceGetGraphicsRunningProcesses(handle: VirtualGpu) -> list[SimpleNamespace]:
    """Nobody draws."""
    checked(handle)
    return []


def _identity(handle: VirtualGpu) -> Identity:
    identity = checked(handle).identity
    if identity is None:
        raise names.NVMLError(names.NVML_ERROR_NOT_SUPPORTED)
    return identity


def _only(matches: Iterator[VirtualGpu]) -> VirtualGpu:
    gpu = next(matches, None)
    if gpu is None:
        raise names.NVMLError(names.NVML_ERROR_NOT_FOUND)
    return gpu
