"""A stand-in for the module amdsmi 7.0: GPUs with known power, and errors that come and go.

Names, keys and "N/A" are those of the library's Python interface; the real module cannot be loaded without ROCm.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

NAMES = {
    2: "NOT_SUPPORTED - Feature not supported",
    10: "NO_PERM - Permission Denied",
    34: "DRIVER_NOT_LOADED - Driver not loaded",
    13: "IO - I/O Error",
    32: "NOT_INIT - Device not initialized",
    31: "NOT_FOUND - Device Not found",
}
NOT_SUPPORTED, NO_PERM, DRIVER_NOT_LOADED, IO, NOT_INIT, NOT_FOUND = 2, 10, 34, 13, 32, 31


class AmdSmiException(Exception):  # noqa: N818  the library's name
    """As in the library."""


class AmdSmiLibraryException(AmdSmiException):
    """As in the library, whose text starts with a line of its own."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        return f"Error code:\n\t{self.code} | AMDSMI_STATUS_{NAMES[self.code]}"


class AmdSmiInitFlags(IntEnum):
    INIT_AMD_GPUS = 2


class AmdSmiClkType(IntEnum):
    GFX = 1


class AmdSmiMemoryType(IntEnum):
    VRAM = 0


class AmdSmiTemperatureType(IntEnum):
    EDGE = 0
    HOTSPOT = 1


class AmdSmiTemperatureMetric(IntEnum):
    CURRENT = 0


@dataclass
class FakeGpu:
    """A GPU. A power that it lacks is "N/A"; a counter that it lacks is None."""

    uuid: str
    average_w: int | str = "N/A"
    instant_w: int | str = 550
    counter: int | None = 1_000_000_000
    step: int = 1_000_000
    resolution_uj: float = 15.3
    counter_key: str = "energy_accumulator"
    activity: int | str = 88


@dataclass
class FakeAmdSmi:
    """`fail` maps a function's name to the error codes of its next calls; None lets a call through."""

    gpus: list[FakeGpu]
    broken: int | None = None
    fail: dict[str, deque[int | None]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    sessions: int = 0

    AmdSmiException = AmdSmiException
    AmdSmiInitFlags = AmdSmiInitFlags
    AmdSmiClkType = AmdSmiClkType
    AmdSmiMemoryType = AmdSmiMemoryType
    AmdSmiTemperatureType = AmdSmiTemperatureType
    AmdSmiTemperatureMetric = AmdSmiTemperatureMetric

    def _enter(self, function: str) -> None:
        self.calls.append(function)
        if self.sessions == 0:
            raise AmdSmiLibraryException(NOT_INIT)
        pending = self.fail.get(function)
        code = pending.popleft() if pending else None
        if code is not None:
            raise AmdSmiLibraryException(code)

    def amdsmi_init(self, flag: AmdSmiInitFlags) -> None:
        assert flag is AmdSmiInitFlags.INIT_AMD_GPUS
        if self.broken is not None:
            raise AmdSmiLibraryException(self.broken)
        self.sessions += 1

    def amdsmi_shut_down(self) -> None:
        self._enter("amdsmi_shut_down")
        self.sessions -= 1

    def amdsmi_get_processor_handles(self) -> list[FakeGpu]:
        self._enter("amdsmi_get_processor_handles")
        return self.gpus

    def amdsmi_get_gpu_device_uuid(self, handle: FakeGpu) -> str:
        self._enter("amdsmi_get_gpu_device_uuid")
        return handle.uuid

    def amdsmi_get_power_info(self, handle: FakeGpu) -> dict[str, Any]:
        self._enter("amdsmi_get_power_info")
        return {
            "socket_power": "N/A",
            "current_socket_power": handle.instant_w,
            "average_socket_power": handle.average_w,
            "gfx_voltage": "N/A",
            "power_limit": 750,
        }

    def amdsmi_get_energy_count(self, handle: FakeGpu) -> dict[str, Any]:
        self._enter("amdsmi_get_energy_count")
        if handle.counter is None:
            raise AmdSmiLibraryException(NOT_SUPPORTED)
        counter = handle.counter
        handle.counter += handle.step
        return {
            handle.counter_key: counter,
            "counter_resolution": handle.resolution_uj,
            "timestamp": 1_700_000_000_123_456_789,
        }

    def amdsmi_get_gpu_activity(self, handle: FakeGpu) -> dict[str, Any]:
        self._enter("amdsmi_get_gpu_activity")
        return {"gfx_activity": handle.activity, "umc_activity": 12, "mm_activity": "N/A"}

    def amdsmi_get_gpu_memory_usage(self, handle: FakeGpu, kind: AmdSmiMemoryType) -> int:
        self._enter("amdsmi_get_gpu_memory_usage")
        assert kind is AmdSmiMemoryType.VRAM
        return 150_000_000_000

    def amdsmi_get_clock_info(self, handle: FakeGpu, kind: AmdSmiClkType) -> dict[str, Any]:
        self._enter("amdsmi_get_clock_info")
        assert kind is AmdSmiClkType.GFX
        return {"clk": 2100, "min_clk": 500, "max_clk": 2100, "clk_locked": False, "clk_deep_sleep": 0}

    def amdsmi_get_temp_metric(self, handle: FakeGpu, kind: AmdSmiTemperatureType, metric: Any) -> int:
        self._enter("amdsmi_get_temp_metric")
        assert (kind, metric) == (AmdSmiTemperatureType.HOTSPOT, AmdSmiTemperatureMetric.CURRENT)
        return 64
