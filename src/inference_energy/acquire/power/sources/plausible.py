"""Checks of what an outside device says: a number that cannot be a machine's power or energy does not pass."""

import math
from typing import Any

from inference_energy.acquire.power.base import SourceError

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
