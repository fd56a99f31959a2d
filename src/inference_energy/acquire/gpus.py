"""Which GPUs a server gets, as UUIDs: indices change with CUDA_VISIBLE_DEVICES and between boots."""

from collections.abc import Sequence

from inference_energy.errors import InputError


def gpu_uuids(wanted: str | Sequence[int], server: str) -> list[str]:
    """UUIDs of the wanted GPUs.

    Args:
        wanted: `all`, `none`, or indices.
        server: key of the server, for the message.

    Raises:
        InputError: an index is out of range, or GPUs are named on a machine that has none.
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
        found = [
            str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index)))
            for index in range(pynvml.nvmlDeviceGetCount())
        ]
    finally:
        pynvml.nvmlShutdown()
    if isinstance(wanted, str):
        return found
    if beyond := [index for index in wanted if not 0 <= index < len(found)]:
        raise InputError(f"servers.{server}.gpus: there is no GPU {beyond[0]}; this machine has {len(found)}")
    return [found[index] for index in wanted]
