"""What an NVIDIA GPU's power averages over, by its architecture.

"On Ampere (except GA100) or newer GPUs, the API returns power averaged over 1 sec interval. On GA100 and older
architectures, instantaneous power is returned." (NVML API reference, nvmlDeviceGetPowerUsage.) Of nvidia-smi's
`power.draw` and of DCGM_FI_DEV_POWER_USAGE the same holds, which are made of that call. POWER_AVERAGE, field 185, is
documented for the former only.
"""

from collections.abc import Mapping
from typing import Any

from inference_energy.contracts.power import AVERAGING_WINDOW_S

Capability = tuple[int, int]

AVERAGE_S = 1.0
GA100: Capability = (8, 0)
"""Compute capability; NVIDIA's Ampere boards other than GA100 have 8.6 and above."""


def usage_window_s(capability: Capability | None) -> float | None:
    """Of the power usage: 1 s, or 0 where it is instantaneous; None where the capability is not known."""
    if capability is None:
        return None
    return AVERAGE_S if capability > GA100 else 0.0


def average_window_s(capability: Capability | None) -> float | None:
    """Of POWER_AVERAGE: 1 s; None on a GPU that is not documented to have it, and answers all the same."""
    return None if capability is not None and capability <= GA100 else AVERAGE_S


def averaging(device: str, by_architecture_s: float | None, found_s: Mapping[str, float]) -> dict[str, Any]:
    """What a channel says of its average readings.

    Args:
        device: the GPU's UUID.
        by_architecture_s: what the architecture says.
        found_s: by UUID, what characterising a GPU found; it goes before.
    """
    if by_architecture_s != 0.0 and device in found_s:
        return {AVERAGING_WINDOW_S: found_s[device], "averaging_basis": "characterisation"}
    if by_architecture_s is None:
        return {AVERAGING_WINDOW_S: None}
    return {AVERAGING_WINDOW_S: by_architecture_s, "averaging_basis": "architecture"}
