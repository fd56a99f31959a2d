"""What NVML says of a kind of GPU that plays no part in its time or energy. Source: NVIDIA's data sheets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """Compute capability, FP32 cores, memory clock, and the PCI number of the kind."""

    compute_capability: tuple[int, int]
    cores: int
    memory_clock_mhz: int
    pci_device_id: int


IDENTITIES = {
    "h100": Identity((9, 0), 16896, 2619, 0x233010DE),
    "a100": Identity((8, 0), 6912, 1593, 0x20B210DE),
}
"""By the device's name; a kind that is not here answers such questions with Not Supported."""
