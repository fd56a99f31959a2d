"""GPUs to oneself: locked, and free of other processes before and after."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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
        raise _renamed(error) from error
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
        raise _renamed(error) from error


def _renamed(error: InputError) -> InputError:
    """With the option in place of the key under which a server's GPUs are named."""
    return InputError(str(error).replace("server.gpus:", "--gpu:", 1))
