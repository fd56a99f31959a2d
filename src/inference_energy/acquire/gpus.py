"""Which GPUs a server gets, as UUIDs: indices change with CUDA_VISIBLE_DEVICES and between boots."""

from collections.abc import Sequence
from typing import Any

from inference_energy.acquire.power.base import SourceError
from inference_energy.acquire.power.sources.nvml import device
from inference_energy.acquire.power.sources.nvml.device import cards
from inference_energy.errors import InputError


def gpu_uuids(wanted: str | Sequence[int | str], server: str) -> list[str]:
    """UUIDs of the wanted GPUs or MIG instances.

    Args:
        wanted: `all`, `none`, or a list of indices, and UUIDs of GPUs and of MIG instances (a beginning is enough).
        server: key of the server, for the message.

    Raises:
        InputError: one is not there, or GPUs are named on a machine that has none.
    """
    if wanted == "none":
        return []
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if wanted == "all":
            return []
        raise InputError(f"servers.{server}.gpus: no NVIDIA GPU can be seen here ({error}); write none") from error
    try:
        if isinstance(wanted, str):
            return [
                str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index)))
                for index in range(pynvml.nvmlDeviceGetCount())
            ]
        found = [_named(pynvml, one, server) for one in wanted]
    finally:
        pynvml.nvmlShutdown()
    return list(dict.fromkeys(found))


def cards_of(gpus: Sequence[str], nvml: Any = None) -> list[str]:
    """UUIDs of the whole GPUs behind UUIDs of GPUs and of MIG instances, each once.

    Args:
        gpus: UUIDs, as `gpu_uuids` gives them.
        nvml: the module to use in place of pynvml.

    Raises:
        InputError: an instance has gone.
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


def _named(nvml: Any, wanted: int | str, server: str) -> str:
    count = nvml.nvmlDeviceGetCount()
    if isinstance(wanted, int) and not 0 <= wanted < count:
        raise InputError(f"servers.{server}.gpus: there is no GPU {wanted}; this machine has {count}")
    try:
        (card,) = cards(nvml, [wanted])
    except SourceError as error:
        raise InputError(f"servers.{server}.gpus: {error}") from error
    return card.used[0] if str(wanted).startswith(device.PREFIX) else card.uuid
