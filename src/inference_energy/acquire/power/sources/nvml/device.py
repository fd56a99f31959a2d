"""NVML's errors, as the sources that read it tell them: `SourceError` with what to do where that is known.

NVML's errors, as the sources that read it tell them: `SourceError` with what to do where that is known.

MIG: a GPU partitioned into instances, which have no power of their own.

NVML's power and energy counter are those of the whole card; an instance's UUID leads to its card. Only those instances
are listed that this process may see, as in a container that was given some. Source: NVML API reference, "Multi Instance
GPU Management".

Which of the NVIDIA GPUs here are meant, and what has to be known of each before it is read.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from inference_energy.acquire.power.base import SourceError
from inference_energy.acquire.power.sources.gpu_selection import select_gpus
from inference_energy.acquire.power.sources.sanity import Capability
from inference_energy.contracts.power import MIG

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


@dataclass(frozen=True)
class Card:
    """A whole GPU.

    Attributes:
        uuid, handle: its own, never those of an instance.
        capability: compute capability; None where it cannot be had.
        instances: where it is partitioned, those that can be seen; else None.
        used: UUIDs of those instances that the job was given, as far as that is known.
    """

    uuid: str
    handle: Any
    capability: Capability | None = None
    instances: tuple[Instance, ...] | None = None
    used: tuple[str, ...] = ()

    def about(self) -> dict[str, Any]:
        """What the log's metadata says of the card: see `contracts.power`."""
        if self.instances is None:
            return {}
        listed = [{"uuid": one.uuid, "profile": one.profile} for one in self.instances]
        return {MIG: {"instances": listed, "used": list(self.used)}}

    def words(self) -> str | None:
        """What a partitioned card needs said of it."""
        if self.instances is None:
            return None
        profiles = ", ".join(one.profile for one in self.instances) or "none that can be seen from here"
        used = f", used: {', '.join(self.used)}" if self.used else ""
        return f"{self.uuid} is partitioned (MIG) and read as the whole card; its instances: {profiles}{used}"


def cards(nvml: Any, wanted: Sequence[str | int] | None) -> list[Card]:
    """The GPUs asked for, each once; an instance stands for its card.

    Args:
        nvml: pynvml, initialised.
        wanted: UUIDs (a beginning is enough) or NVML indices; None for all.

    Raises:
        SourceError: there is no GPU, or a name fits none or several; the message says what there is.
    """
    with mapped(nvml, "listing the GPUs"):
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        present = {str(nvml.nvmlDeviceGetUUID(handle)): handle for handle in handles}
    if not present and wanted != []:
        raise SourceError("the NVIDIA driver works but shows no GPU")
    instances = {uuid: instances_of(nvml, handle) for uuid, handle in present.items()}
    parents = {one.uuid: uuid for uuid, ones in instances.items() for one in ones or ()}
    named = {name: _instance(str(name), list(parents)) for name in wanted or () if str(name).startswith(PREFIX)}
    whole = None if wanted is None else [parents[named[name]] if name in named else name for name in wanted]
    given = set(named.values())
    if not given:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        given = {uuid for ones in instances.values() for uuid in named_in(visible, ones or ())}
    return [
        Card(
            uuid,
            present[uuid],
            capability_of(nvml, present[uuid]),
            instances[uuid],
            tuple(one.uuid for one in instances[uuid] or () if one.uuid in given),
        )
        for uuid in select_gpus(whole, list(present))
    ]


def capability_of(nvml: Any, handle: Any) -> Capability | None:
    """Its compute capability; None where it does not say."""
    try:
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    except nvml.NVMLError:
        return None
    return int(major), int(minor)


def _instance(wanted: str, present: Sequence[str]) -> str:
    found = [uuid for uuid in present if uuid.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if not present:
        raise SourceError(f"{wanted} is a MIG instance, and no GPU here shows one: write a GPU's index or UUID")
    trouble = "no MIG instance" if not found else f"{len(found)} MIG instances"
    raise SourceError(f"{trouble} here match(es) {wanted!r}; write a UUID of: {', '.join(present)}")
