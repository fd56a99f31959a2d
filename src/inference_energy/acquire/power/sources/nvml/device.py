"""NVIDIA GPUs as NVML lists them: selection, MIG instances, compute capability, and NVML's errors with their remedies.

A GPU partitioned into instances (MIG) has power and an energy counter of the whole card only; an instance's UUID leads
to its card. NVML lists only the instances that this process may see, such as those given to its container. Source: NVML
API reference, "Multi Instance GPU Management".
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from inference_energy.acquire.power.base import SourceError
from inference_energy.acquire.power.sources.gpu_selection import select_gpus
from inference_energy.acquire.power.sources.sanity import Capability
from inference_energy.contracts.plausible_power import BOARD_FACTOR, stated_limit_w
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
    """Return whether an error code means that this GPU or driver lacks the quantity."""
    return code in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_INVALID_ARGUMENT)


def supported(nvml: Any, call: Callable[[], Any]) -> bool:
    """Return False only if the GPU lacks the quantity; after a passing error it is worth trying again."""
    try:
        call()
    except nvml.NVMLError as error:
        return not unsupported(nvml, error.value)
    return True


def source_error(nvml: Any, error: Any, doing: str) -> SourceError:
    """Return the `SourceError` for an `NVMLError`."""
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
    """A MIG instance: its handle, UUID and profile, such as `1g.10gb`; an unknown profile is `?`."""

    handle: Any
    uuid: str
    profile: str


def list_instances(nvml: Any, handle: Any) -> tuple[Instance, ...] | None:
    """Return the visible instances of a card; None if it is not partitioned, or its mode cannot be read."""
    try:
        mode, _ = nvml.nvmlDeviceGetMigMode(handle)
        if mode != nvml.NVML_DEVICE_MIG_ENABLE:
            return None
        most = int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle))
    except nvml.NVMLError:
        return None
    instances = []
    for index in range(most):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            instances.append(Instance(instance, str(nvml.nvmlDeviceGetUUID(instance)), _profile(nvml, instance)))
        except nvml.NVMLError:  # no instance has this number, or it is not visible
            continue
    return tuple(instances)


def named_in(text: str, instances: Iterable[Instance]) -> list[str]:
    """Return the UUIDs of the instances that a value of CUDA_VISIBLE_DEVICES names, if only by a prefix."""
    words = [word.strip() for word in text.split(",")]
    return [
        instance.uuid
        for instance in instances
        if any(word.startswith(PREFIX) and instance.uuid.startswith(word) for word in words)
    ]


def _profile(nvml: Any, handle: Any) -> str:
    """Return the end of an instance's name, such as `1g.10gb` of `NVIDIA H100 80GB HBM3 MIG 1g.10gb`."""
    try:
        _, separator, profile = str(nvml.nvmlDeviceGetName(handle)).partition(" MIG ")
    except nvml.NVMLError:
        return "?"
    return profile if separator else "?"


@dataclass(frozen=True)
class Card:
    """A whole GPU.

    Attributes:
        uuid, handle: of the whole card, never of an instance.
        capability: compute capability; None if it cannot be read.
        instances: visible instances of a partitioned card; None for others.
        used: UUIDs of the instances that the job was given, as far as known.
        limit_w: highest plausible power of the board; None if the driver states no power limit.
    """

    uuid: str
    handle: Any
    capability: Capability | None = None
    instances: tuple[Instance, ...] | None = None
    used: tuple[str, ...] = ()
    limit_w: float | None = None

    def metadata(self) -> dict[str, Any]:
        """Return the card's part of the log's metadata, see `contracts.power`."""
        if self.instances is None:
            return {}
        listed = [{"uuid": instance.uuid, "profile": instance.profile} for instance in self.instances]
        return {MIG: {"instances": listed, "used": list(self.used)}}

    def partition_text(self) -> str | None:
        """Return a sentence about a partitioned card, None for others."""
        if self.instances is None:
            return None
        profiles = ", ".join(instance.profile for instance in self.instances) or "none that can be seen from here"
        used = f", used: {', '.join(self.used)}" if self.used else ""
        return f"{self.uuid} is partitioned (MIG) and read as the whole card; its instances: {profiles}{used}"


def cards(nvml: Any, names: Sequence[str | int] | None) -> list[Card]:
    """Return the selected GPUs, each once; an instance stands for its card.

    Args:
        nvml: pynvml, initialized.
        names: UUIDs (a beginning is enough) or NVML indices; None for all.

    Raises:
        SourceError: there is no GPU, or a name fits none or several; the message says what there is.
    """
    with mapped(nvml, "listing the GPUs"):
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        present = {str(nvml.nvmlDeviceGetUUID(handle)): handle for handle in handles}
    if not present and names != []:
        raise SourceError("the NVIDIA driver works but shows no GPU")
    instances = {uuid: list_instances(nvml, handle) for uuid, handle in present.items()}
    parents = {instance.uuid: uuid for uuid, group in instances.items() for instance in group or ()}
    named = {name: _instance(str(name), list(parents)) for name in names or () if str(name).startswith(PREFIX)}
    whole = None if names is None else [parents[named[name]] if name in named else name for name in names]
    used = set(named.values())
    if not used:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        used = {uuid for group in instances.values() for uuid in named_in(visible, group or ())}
    return [
        Card(
            uuid,
            present[uuid],
            capability_of(nvml, present[uuid]),
            instances[uuid],
            tuple(instance.uuid for instance in instances[uuid] or () if instance.uuid in used),
            power_limit_w(nvml, present[uuid]),
        )
        for uuid in select_gpus(whole, list(present))
    ]


def power_limit_w(nvml: Any, handle: Any) -> float | None:
    """Return a GPU's plausibility limit, by the highest power limit that the driver states; None if it states none."""
    calls: tuple[Callable[[], Any], ...] = (
        lambda: nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)[1],
        lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle),
        lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle),
    )
    stated_w = []
    for call in calls:
        with suppress(nvml.NVMLError):
            stated_w.append(float(call()) / 1e3)
    return stated_limit_w(stated_w, BOARD_FACTOR)


def capability_of(nvml: Any, handle: Any) -> Capability | None:
    """Return a GPU's compute capability; None if it cannot be read."""
    try:
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    except nvml.NVMLError:
        return None
    return int(major), int(minor)


def _instance(name: str, present: Sequence[str]) -> str:
    matches = [uuid for uuid in present if uuid.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if not present:
        raise SourceError(f"{name} is a MIG instance, and no GPU here shows one: write a GPU's index or UUID")
    trouble = "no MIG instance" if not matches else f"{len(matches)} MIG instances"
    raise SourceError(f"{trouble} here match(es) {name!r}; write a UUID of: {', '.join(present)}")
