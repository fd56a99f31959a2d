"""Sanity checks of readings from outside devices, and the averaging time of an NVIDIA GPU's power by architecture.

Averaging time: "On Ampere (except GA100) or newer GPUs, the API returns power averaged over 1 sec interval. On GA100
and older architectures, instantaneous power is returned." (NVML API reference, nvmlDeviceGetPowerUsage.) nvidia-smi's
`power.draw` and DCGM_FI_DEV_POWER_USAGE use that call, so the same holds for them. POWER_AVERAGE, field 185, is
documented for newer GPUs only.
"""

from collections.abc import Mapping
from typing import Any

from inference_energy.acquire.power.base import SourceError
from inference_energy.contracts.power import AVERAGING_WINDOW_S

LARGEST = 1e300
"""Larger integers are no floats, and nothing that is measured is near."""
HIGHEST_POWER_W = 1e6
STUCK_AFTER_J = 36_000.0
STUCK_AFTER_S = 150.0
"""A plug's counter has steps of up to 3600 J and may be updated once a minute: it is stuck if ten steps are due."""


def number(value: Any) -> float | None:
    """Return a finite number as float, anything else as None, also True and "12"."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST < value < LARGEST:
        return None
    return float(value)


def power_w(value: Any, what: str) -> float:
    """Return the power in W of a machine or GPU that is switched on, if it is plausible.

    Args:
        value: the device's reading in W.
        what: name of the reading, for messages.

    Raises:
        SourceError: the reading is not a number, or is zero, negative or higher than any machine draws.
    """
    watts = number(value)
    if watts is None:
        raise SourceError(f"{what} gives no number")
    if watts == 0:
        raise SourceError(f"{what} reads 0 W: nothing that runs hangs on it, or its meter does not work")
    if watts < 0:
        raise SourceError(f"{what} reads {watts:g} W: a power below zero means that the meter is wired backwards")
    if watts > HIGHEST_POWER_W:
        raise SourceError(f"{what} reads {watts:g} W, which no machine draws: check the scale")
    return watts


class GrowingCounter:
    """Passes a device's energy counter through until it decreases.

    After a decrease the energy in between is unknown, so the counter is no longer used; the power remains valid. The
    object belongs to the source, not to the channel, because a channel reopened within one log must not start over.

    Args:
        what: name of the counter, for messages.
        watched: whether a counter that does not grow while power flows is an error.
    """

    def __init__(self, what: str, watched: bool = False) -> None:
        self._what = what
        self._watched = watched
        self._last_j: float | None = None
        self._was_reset = False
        self._last_ns = 0
        self._moved_ns = 0
        self._expected_j = 0.0

    def add(self, energy_j: float | None, power_w: float, timestamp_ns: int) -> float | None:
        """Check the next value in J against the power in W at the same time; return it, or None if it is unknown.

        Raises:
            SourceError: the counter went back, or does not grow although power flows.
        """
        if energy_j is None or self._was_reset:
            return None
        last_j, self._last_j = self._last_j, energy_j
        last_ns, self._last_ns = self._last_ns, timestamp_ns
        if last_j is not None and energy_j < last_j:
            self._was_reset = True
            raise SourceError(
                f"{self._what} went back from {last_j:.0f} to {energy_j:.0f} J: it was reset, and only power is logged "
                "from here on"
            )
        if last_j is None or energy_j > last_j:
            self._moved_ns, self._expected_j = timestamp_ns, 0.0
            return energy_j
        self._expected_j += power_w * (timestamp_ns - last_ns) / 1e9
        still_s = (timestamp_ns - self._moved_ns) / 1e9
        if self._watched and self._expected_j > STUCK_AFTER_J and still_s > STUCK_AFTER_S:
            raise SourceError(f"{self._what} has not moved for {still_s:.0f} s at {power_w:g} W: the meter is stuck")
        return energy_j


Capability = tuple[int, int]

AVERAGE_S = 1.0
GA100: Capability = (8, 0)
"""Compute capability; NVIDIA's Ampere boards other than GA100 have 8.6 and above."""


def usage_window_s(capability: Capability | None) -> float | None:
    """Return the averaging time of the power usage: 1 s, 0 if instantaneous, None if the capability is unknown."""
    if capability is None:
        return None
    return AVERAGE_S if capability > GA100 else 0.0


def average_window_s(capability: Capability | None) -> float | None:
    """Return the averaging time of POWER_AVERAGE: 1 s; None on a GPU that answers without documented support."""
    return None if capability is not None and capability <= GA100 else AVERAGE_S


def averaging(device: str, by_architecture_s: float | None, measured_s: Mapping[str, float]) -> dict[str, Any]:
    """Return the metadata about a channel's averaging time.

    Args:
        device: the GPU's UUID.
        by_architecture_s: averaging time by the GPU's architecture.
        measured_s: averaging times from `inference-energy characterize`, by UUID; they take precedence.
    """
    if by_architecture_s != 0.0 and device in measured_s:
        return {AVERAGING_WINDOW_S: measured_s[device], "averaging_basis": "characterisation"}
    if by_architecture_s is None:
        return {AVERAGING_WINDOW_S: None}
    return {AVERAGING_WINDOW_S: by_architecture_s, "averaging_basis": "architecture"}
