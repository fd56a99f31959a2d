"""Whether a channel's values move: a sensor that gives only zeros, or one value for too long, is not measuring."""

from collections.abc import Iterable
from operator import attrgetter

from inference_energy.acquire.power.base import PowerSample

MIN_ZEROS = 10
MIN_ZEROS_S = 5.0
"""So many readings over so long that are all zero are called only zeros."""

_values = attrgetter("power_instant_w", "power_average_w", "energy_counter_j")


class StuckDetector:
    """Follows the values of one channel.

    Args:
        limit_s: the same value for longer is a fault.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._value: tuple[float | None, ...] | None = None
        self._first_ns = self._since_ns = self._until_ns = 0
        self._count = 0
        self._moved = False
        self._longest_s = 0.0
        self._longest_value: float | None = None

    def take(self, readings: Iterable[PowerSample], powered: bool = True) -> None:
        """Follow more readings; `powered` is False where the device draws nothing, so that its counter may rest."""
        for reading in readings:
            value = _values(reading)
            if value == self._value and powered:
                self._until_ns = reading.timestamp_ns
            else:
                self._note()
                if self._value is None:
                    self._first_ns = reading.timestamp_ns
                self._value = value
                self._since_ns = self._until_ns = reading.timestamp_ns
                self._moved = self._moved or any(value)
            self._count += 1

    def fault(self) -> str | None:
        """What is wrong, in words that go after the channel's name."""
        self._note()
        span_s = (self._until_ns - self._first_ns) / 1e9
        if not self._moved and self._count >= MIN_ZEROS and span_s >= MIN_ZEROS_S:
            return f"gave only zeros: {self._count} readings in {span_s:.0f} s"
        if self._longest_s <= self._limit_s:
            return None
        return f"gave the same value, {self._longest_value:g}, for {self._longest_s:.0f} s: it seems stuck"

    def _note(self) -> None:
        """Keep the stretch that ends now, where it is the longest."""
        still_s = (self._until_ns - self._since_ns) / 1e9
        if self._value is not None and still_s > self._longest_s:
            known = [part for part in self._value if part is not None]
            if known:
                self._longest_s, self._longest_value = still_s, known[-1]
