"""The temperature of a chip, and the power that leaks for it: a first-order model."""

import math

from inference_energy.bench.parts.devices import Device


class Thermal:
    """Temperature of one GPU; all GPUs of a tensor-parallel group share it, for they do the same.

    Attributes:
        temperature_c: now.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.rest_c = device.ambient_c + device.k_per_w * device.cold_idle_w
        self.temperature_c = self.rest_c

    @property
    def leakage_w(self) -> float:
        """Power above that of a chip as cold as at cold idle."""
        return self._device.leakage_w_per_k * (self.temperature_c - self.rest_c)

    def advance(self, duration_s: float, power_w: float) -> None:
        """Let a stretch of constant power pass."""
        target_c = self._device.ambient_c + self._device.k_per_w * power_w
        self.temperature_c += (target_c - self.temperature_c) * (
            1.0 - math.exp(-duration_s / self._device.thermal_time_s)
        )
