"""MIG: a GPU partitioned into instances, which have no power of their own.

NVML's power and energy counter are those of the whole card; an instance's UUID leads to its card. Only those instances
are listed that this process may see, as in a container that was given some. Source: NVML API reference, "Multi Instance
GPU Management".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

PREFIX = "MIG-"


@dataclass(frozen=True)
class Instance:
    """One MIG device: its handle, UUID and profile, such as `1g.10gb`; an unknown profile is `?`."""

    handle: Any
    uuid: str
    profile: str


def instances_of(nvml: Any, handle: Any) -> tuple[Instance, ...] | None:
    """The instances of a card that can be seen from here; None where it is not partitioned, or does not say."""
    try:
        mode, _ = nvml.nvmlDeviceGetMigMode(handle)
        if mode != nvml.NVML_DEVICE_MIG_ENABLE:
            return None
        most = int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle))
    except nvml.NVMLError:
        return None
    found = []
    for index in range(most):
        try:
            one = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            found.append(Instance(one, str(nvml.nvmlDeviceGetUUID(one)), _profile(nvml, one)))
        except nvml.NVMLError:  # there is none of this number, or it may not be seen
            continue
    return tuple(found)


def named_in(text: str, instances: Iterable[Instance]) -> list[str]:
    """The UUIDs of those instances that a value of CUDA_VISIBLE_DEVICES names, by a beginning as there."""
    words = [word.strip() for word in text.split(",")]
    return [
        one.uuid for one in instances if any(word.startswith(PREFIX) and one.uuid.startswith(word) for word in words)
    ]


def _profile(nvml: Any, handle: Any) -> str:
    """The end of its name, as in `NVIDIA H100 80GB HBM3 MIG 1g.10gb`."""
    try:
        _, found, profile = str(nvml.nvmlDeviceGetName(handle)).partition(" MIG ")
    except nvml.NVMLError:
        return "?"
    return profile if found else "?"
