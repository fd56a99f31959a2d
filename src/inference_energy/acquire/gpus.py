"""GPUs of a server by UUID, because indices change with CUDA_VISIBLE_DEVICES and between boots."""

from collections.abc import Sequence
from typing import Any

from inference_energy.acquire.power.base import SourceError
from inference_energy.acquire.power.sources.nvml import device
from inference_energy.acquire.power.sources.nvml.device import cards
from inference_energy.errors import InputError


def gpu_uuids(selection: str | Sequence[int | str], server: str) -> list[str]:
    """Return the UUIDs of the selected GPUs or MIG instances.

    Args:
        selection: `all`, `none`, or a list of indices, and UUIDs of GPUs and of MIG instances (a beginning is enough).
        server: key of the server, for messages.

    Raises:
        InputError: one is not there, or GPUs are named on a machine that has none.
    """
    if selection == "none":
        return []
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if selection == "all":
            return []
        raise InputError(f"servers.{server}.gpus: no NVIDIA GPU can be seen here ({error}); write none") from error
    try:
        if isinstance(selection, str):
            return [
                str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index)))
                for index in range(pynvml.nvmlDeviceGetCount())
            ]
        uuids = [_named(pynvml, name, server) for name in selection]
    finally:
        pynvml.nvmlShutdown()
    return list(dict.fromkeys(uuids))


def cards_of(gpus: Sequence[str], nvml: Any = None) -> list[str]:
    """Return the UUIDs of the whole GPUs of some GPUs and MIG instances, each once.

    Args:
        gpus: UUIDs from `gpu_uuids`.
        nvml: the module to use instead of pynvml.

    Raises:
        InputError: an instance no longer exists.
    """
    if not any(uuid.startswith(device.PREFIX) for uuid in gpus):
        return list(dict.fromkeys(gpus))
    if nvml is None:
        import pynvml

        nvml = pynvml
    try:
        nvml.nvmlInit()
        try:
            return [card.uuid for card in cards(nvml, gpus)]
        finally:
            nvml.nvmlShutdown()
    except (SourceError, nvml.NVMLError) as error:
        raise InputError(f"server.gpus: {error}") from error


def _named(nvml: Any, name: int | str, server: str) -> str:
    count = nvml.nvmlDeviceGetCount()
    if isinstance(name, int) and not 0 <= name < count:
        raise InputError(f"servers.{server}.gpus: there is no GPU {name}; this machine has {count}")
    try:
        (card,) = cards(nvml, [name])
    except SourceError as error:
        raise InputError(f"servers.{server}.gpus: {error}") from error
    return card.used[0] if str(name).startswith(device.PREFIX) else card.uuid
