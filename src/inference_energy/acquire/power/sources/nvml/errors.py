"""NVML's errors, as the sources that read it tell them: `SourceError` with what to do where that is known."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from inference_energy.acquire.power.base import SourceError

_HINTS = {
    "NVML_ERROR_LIBRARY_NOT_FOUND": "no NVIDIA driver library here: install the driver or, in a container, start it "
    "with the GPUs (docker run --gpus all)",
    "NVML_ERROR_DRIVER_NOT_LOADED": "the NVIDIA driver is not loaded: load it (modprobe nvidia) or reboot",
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": "the driver's library and its kernel module differ in version: reboot",
    "NVML_ERROR_NO_PERMISSION": "this user may not use the GPU: give it read and write access to /dev/nvidia*",
    "NVML_ERROR_GPU_IS_LOST": "the GPU fell off the bus: reboot",
}


def unsupported(nvml: Any, code: int) -> bool:
    """Whether an error code says that this GPU or driver lacks what was asked for."""
    return code in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_INVALID_ARGUMENT)


def supported(nvml: Any, call: Callable[[], Any]) -> bool:
    """False only where the GPU says that it lacks this; a passing error means that it is worth asking again."""
    try:
        call()
    except nvml.NVMLError as error:
        return not unsupported(nvml, error.value)
    return True


def source_error(nvml: Any, error: Any, doing: str) -> SourceError:
    """The `SourceError` for an `NVMLError`."""
    hint = next((text for name, text in _HINTS.items() if getattr(nvml, name) == error.value), None)
    return SourceError(hint or f"{doing}: NVML says {str(error)!r}")


@contextmanager
def mapped(nvml: Any, doing: str) -> Iterator[None]:
    """Turn NVML's exceptions into `SourceError`."""
    try:
        yield
    except nvml.NVMLError as error:
        raise source_error(nvml, error, doing) from error
