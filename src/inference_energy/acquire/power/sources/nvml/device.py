"""Which of the NVIDIA GPUs here are meant, and what has to be known of each before it is read."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inference_energy.acquire.power.base import SourceError
from inference_energy.acquire.power.sources.averaging import Capability
from inference_energy.acquire.power.sources.nvml import mig
from inference_energy.acquire.power.sources.nvml.errors import mapped
from inference_energy.acquire.power.sources.selection import select_gpus
from inference_energy.contracts.power import MIG


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
    instances: tuple[mig.Instance, ...] | None = None
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
    instances = {uuid: mig.instances_of(nvml, handle) for uuid, handle in present.items()}
    parents = {one.uuid: uuid for uuid, ones in instances.items() for one in ones or ()}
    named = {name: _instance(str(name), list(parents)) for name in wanted or () if str(name).startswith(mig.PREFIX)}
    whole = None if wanted is None else [parents[named[name]] if name in named else name for name in wanted]
    given = set(named.values())
    if not given:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        given = {uuid for ones in instances.values() for uuid in mig.named_in(visible, ones or ())}
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
