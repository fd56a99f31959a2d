"""The GPU that is characterized: opened, locked and free of other processes, and the calls under test.

`average` is field 185 (POWER_AVERAGE), `instant` field 186 (POWER_INSTANT), both from one call; if a driver does not
know them, `average` is nvmlDeviceGetPowerUsage, which averages or not depending on the card. Source: NVML API
reference.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from inference_energy.acquire.power.base import SourceError
from inference_energy.acquire.power.sources.gpu_selection import select_gpus
from inference_energy.acquire.power.sources.nvml.device import mapped, supported, unsupported
from inference_energy.acquire.server.locks import acquire_locks
from inference_energy.acquire.server.preflight import check_gpus
from inference_energy.errors import InputError, RunError


@contextmanager
def exclusive(gpus: Sequence[str], nvml: Any = None) -> Iterator[None]:
    """Hold the GPUs' locks for a block that must leave nothing running on them.

    Args:
        gpus: UUIDs.
        nvml: the module to use in place of pynvml.

    Raises:
        InputError: another measurement holds one, or another process uses one.
        RunError: at the end of the block another process uses one.
    """
    try:
        locks = acquire_locks(gpus)
    except InputError as error:
        raise _with_option(error) from error
    with locks:
        _check(gpus, nvml)
        yield
        try:
            _check(gpus, nvml)
        except InputError as error:
            raise RunError(f"another process used the GPU meanwhile, so nothing is kept: {error}") from error


def _check(gpus: Sequence[str], nvml: Any) -> None:
    try:
        check_gpus(gpus) if nvml is None else check_gpus(gpus, nvml=nvml)
    except InputError as error:
        raise _with_option(error) from error


def _with_option(error: InputError) -> InputError:
    """Return the error with the command's option instead of a server's configuration key."""
    return InputError(str(error).replace("server.gpus:", "--gpu:", 1))


MISSING = -1
"""Marks a value that the call did not give."""


@dataclass(frozen=True)
class GpuUnderTest:
    """An open GPU.

    Attributes:
        has_fields, has_average, has_instant, has_counter, has_samples: what it gives.
    """

    nvml: Any
    handle: Any
    uuid: str
    has_fields: bool
    has_average: bool
    has_instant: bool
    has_counter: bool
    has_samples: bool

    def power_mw(self) -> tuple[int, int, int]:
        """Average and instant in mW and the driver's time in us, each `MISSING` where it is not given.

        Raises:
            NVMLError: the call failed as a whole.
        """
        if not self.has_fields:
            return self.usage_mw(), MISSING, MISSING
        ok = self.nvml.NVML_SUCCESS
        average, instant = self._fields()
        stamp = average if average.nvmlReturn == ok else instant
        return (
            int(average.value.uiVal) if average.nvmlReturn == ok else MISSING,
            int(instant.value.uiVal) if instant.nvmlReturn == ok else MISSING,
            int(stamp.timestamp) if stamp.nvmlReturn == ok else MISSING,
        )

    def usage_mw(self) -> int:
        """Power in mW by the older call."""
        return int(self.nvml.nvmlDeviceGetPowerUsage(self.handle))

    def counter_mj(self) -> int:
        """The energy counter in mJ."""
        return int(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle))

    def calls(self) -> dict[str, Callable[[], Any]]:
        """Return the quick calls whose cost is measured, by NVML's names."""
        calls: dict[str, Callable[[], Any]] = {"nvmlDeviceGetPowerUsage": self.usage_mw}
        if self.has_fields:
            calls["nvmlDeviceGetFieldValues (185, 186)"] = self._fields
        if self.has_samples:
            calls["nvmlDeviceGetSamples (power)"] = self._samples
        return calls

    def facts(self) -> dict[str, Any]:
        """Return name, driver and the like for the profile; unavailable facts are null."""
        nvml, handle = self.nvml, self.handle
        questions: dict[str, Callable[[], Any]] = {
            "name": lambda: str(nvml.nvmlDeviceGetName(handle)),
            "driver": lambda: str(nvml.nvmlSystemGetDriverVersion()),
            "vbios": lambda: str(nvml.nvmlDeviceGetVbiosVersion(handle)),
            "power_limit_w": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3,
        }
        facts: dict[str, Any] = {"uuid": self.uuid}
        for name, question in questions.items():
            try:
                facts[name] = question()
            except (nvml.NVMLError, AttributeError):
                facts[name] = None
        return facts

    def _fields(self) -> Any:
        nvml = self.nvml
        return nvml.nvmlDeviceGetFieldValues(
            self.handle, [nvml.NVML_FI_DEV_POWER_AVERAGE, nvml.NVML_FI_DEV_POWER_INSTANT]
        )

    def _samples(self) -> Any:
        return self.nvml.nvmlDeviceGetSamples(self.handle, self.nvml.NVML_TOTAL_POWER_SAMPLES, 0)


@contextmanager
def open_gpu(name: str, nvml: Any = None) -> Iterator[GpuUnderTest]:
    """Open NVML and one GPU of this machine.

    Args:
        name: an NVML index or a UUID (a beginning is enough).
        nvml: the module to use in place of pynvml.

    Raises:
        InputError: there is no such GPU, or no NVML.
        RunError: it gives no power.
    """
    if nvml is None:
        import pynvml

        nvml = pynvml
    try:
        with mapped(nvml, "nvmlInit"):
            nvml.nvmlInit()
    except SourceError as error:
        raise InputError(f"--gpu: {error}") from error
    try:
        try:
            with mapped(nvml, "listing the GPUs"):
                handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
                present = {str(nvml.nvmlDeviceGetUUID(handle)): handle for handle in handles}
            uuid = select_gpus([name], list(present))[0]
        except SourceError as error:
            raise InputError(f"--gpu: {error}") from error
        yield _opened(nvml, present[uuid], uuid)
    finally:
        nvml.nvmlShutdown()


def _opened(nvml: Any, handle: Any, uuid: str) -> GpuUnderTest:
    codes = _field_codes(nvml, handle)
    has_fields = any(not unsupported(nvml, code) for code in codes)
    has_usage = supported(nvml, partial(nvml.nvmlDeviceGetPowerUsage, handle))
    if not has_fields and not has_usage:
        raise RunError(f"GPU {uuid} reports no power: there is nothing to characterize")
    return GpuUnderTest(
        nvml,
        handle,
        uuid,
        has_fields=has_fields,
        has_average=not unsupported(nvml, codes[0]) if has_fields else has_usage,
        has_instant=not unsupported(nvml, codes[1]),
        has_counter=supported(nvml, partial(nvml.nvmlDeviceGetTotalEnergyConsumption, handle)),
        has_samples=supported(nvml, partial(nvml.nvmlDeviceGetSamples, handle, nvml.NVML_TOTAL_POWER_SAMPLES, 0)),
    )


def _field_codes(nvml: Any, handle: Any) -> tuple[int, int]:
    """The return codes of average and instant."""
    try:
        average, instant = nvml.nvmlDeviceGetFieldValues(
            handle, [nvml.NVML_FI_DEV_POWER_AVERAGE, nvml.NVML_FI_DEV_POWER_INSTANT]
        )
    except nvml.NVMLError as error:
        return error.value, error.value
    return average.nvmlReturn, instant.nvmlReturn
