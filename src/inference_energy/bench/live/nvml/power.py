"""NVML's functions for power and energy. What a function returns has the types that pynvml gives."""

# ruff: noqa: N802 - pynvml's own names

import math
from collections.abc import Sequence
from ctypes import Array

from inference_energy.bench.live.nvml import names
from inference_energy.bench.live.nvml.driver import VirtualGpu
from inference_energy.bench.live.nvml.session import checked
from inference_energy.bench.sensors.nvml import FieldReadings


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
    found = []
    for time_us, power_w in checked(handle).ring(after_us):
        sample = names.c_nvmlSample_t(timeStamp=time_us)
        sample.sampleValue.uiVal = _milli(power_w)
        found.append(sample)
    if not found:
        raise names.NVMLError(names.NVML_ERROR_NOT_FOUND)
    return names.NVML_VALUE_TYPE_UNSIGNED_INT, found


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
