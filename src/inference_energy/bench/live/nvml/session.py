"""Sessions of NVML: they open only where `INFERENCE_ENERGY_SIMULATED` names a node.

Elsewhere there is no library, as on a machine without a driver.
"""

import threading

from inference_energy.bench.live.node import node_here
from inference_energy.bench.live.nvml import names
from inference_energy.bench.live.nvml.driver import Driver, VirtualGpu

# ruff: noqa: N802 - pynvml's own names


class _State:
    """Open sessions, and the driver, which is kept between them so that traces are not read again."""

    lock = threading.Lock()
    sessions = 0
    driver: Driver | None = None


def nvmlInit() -> None:
    """Open a session; each needs its own nvmlShutdown."""
    node = node_here()
    if node is None:
        raise names.NVMLError(names.NVML_ERROR_LIBRARY_NOT_FOUND)
    with _State.lock:
        present = _State.driver.node_folder if _State.driver else None
        if present != node:
            if _State.driver:
                _State.driver.close()
            _State.driver = Driver(node)
        _State.sessions += 1


def nvmlInitWithFlags(flags: int) -> None:
    """As nvmlInit."""
    nvmlInit()


def nvmlShutdown() -> None:
    """Close a session."""
    with _State.lock:
        open_driver()
        _State.sessions -= 1


def nvmlErrorString(code: int) -> str:
    """An error in words."""
    return str(names.NVMLError(code))


def nvmlExceptionClass(code: int) -> type[names.NVMLError]:
    """The class of an error."""
    return type(names.NVMLError(code))


def open_driver() -> Driver:
    """The node's GPUs.

    Raises:
        NVMLError: no session is open.
    """
    if _State.sessions == 0 or _State.driver is None:
        raise names.NVMLError(names.NVML_ERROR_UNINITIALIZED)
    return _State.driver


def checked(handle: VirtualGpu) -> VirtualGpu:
    """Return a handle if a session is open."""
    argument(handle in open_driver().gpus)
    return handle


def argument(valid: bool) -> None:
    """Raise NVMLError if an argument is not valid."""
    if not valid:
        raise names.NVMLError(names.NVML_ERROR_INVALID_ARGUMENT)
