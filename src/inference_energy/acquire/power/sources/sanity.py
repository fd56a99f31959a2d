"""Checks of what an outside device says: a number that cannot be a machine's power or energy does not pass.

Checks of what an outside device says: a number that cannot be a machine's power or energy does not pass.

What an NVIDIA GPU's power averages over, by its architecture.

"On Ampere (except GA100) or newer GPUs, the API returns power averaged over 1 sec interval. On GA100 and older
architectures, instantaneous power is returned." (NVML API reference, nvmlDeviceGetPowerUsage.) Of nvidia-smi's
`power.draw` and of DCGM_FI_DEV_POWER_USAGE the same holds, which are made of that call. POWER_AVERAGE, field 185, is
documented for the former only.
"""

import math
from collections.abc import Mapping
from typing import Any

from inference_energy.acquire.power.base import SourceError
from inference_energy.contracts.power import AVERAGING_WINDOW_S

HIGHEST_POWER_W = 1e6
STUCK_AFTER_J = 36_000.0
STUCK_AFTER_S = 150.0
"""A plug's counter has steps of up to 3600 J and may be updated once a minute: after ten steps' worth it is stuck."""


def number(value: Any) -> float | None:
    """The value where it is a finite number, else None; True and "12" are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def power_w(value: Any, what: str) -> float:
    """A power in W, for a machine or a GPU that is switched on.

    Args:
        value: what the device said, in W.
        what: names the reading in the message.

    Raises:
        SourceError: it is no number, or is zero, negative or beyond any machine.
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
    """Passes a device's energy counter on for as long as it only grows.

    Once it went back, the energy in between is unknown and the counter is given up; the power is still good. It belongs
    to the source, not to the channel: what is opened anew within one log must not begin again.

    Args:
        what: names the counter in messages.
        watched: whether a counter that stands still while power flows is an error.
    """

    def __init__(self, what: str, watched: bool = False) -> None:
        self._what = what
        self._watched = watched
        self._last_j: float | None = None
        self._given_up = False
        self._last_ns = 0
        self._moved_ns = 0
        self._due_j = 0.0

    def add(self, energy_j: float | None, power_w: float, timestamp_ns: int) -> float | None:
        """Take the next value in J, with the power in W at the same time; returns it, or None where there is none.

        Raises:
            SourceError: the counter went back, or stands still although power flows.
        """
        if energy_j is None or self._given_up:
            return None
        last_j, self._last_j = self._last_j, energy_j
        last_ns, self._last_ns = self._last_ns, timestamp_ns
        if last_j is not None and energy_j < last_j:
            self._given_up = True
            raise SourceError(
                f"{self._what} went back from {last_j:.0f} to {energy_j:.0f} J: it was reset, and only power is logged "
                "from here on"
            )
        if last_j is None or energy_j > last_j:
            self._moved_ns, self._due_j = timestamp_ns, 0.0
            return energy_j
        self._due_j += power_w * (timestamp_ns - last_ns) / 1e9
        still_s = (timestamp_ns - self._moved_ns) / 1e9
        if self._watched and self._due_j > STUCK_AFTER_J and still_s > STUCK_AFTER_S:
            raise SourceError(f"{self._what} has not moved for {still_s:.0f} s at {power_w:g} W: the meter is stuck")
        return energy_j


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
