"""When a sensor shows something new: update k comes at origin + phase + k * period + jitter k."""

import numpy as np

from inference_energy.bench.sensors.draws import Draws
from inference_energy.bench.truth.segments import Floats, Integers

JITTER_LIMIT = 0.45
"""Updates come at most this share of a period early or late, so that they keep their order."""


class Ticks:
    """The updates of one sensor, from long before the origin on; nothing is kept between calls.

    Args:
        origin_ns: the moment the node began.
        period_s: mean time between updates.
        jitter_s: standard deviation of an update's own delay.
        names: of the stream that draws phase and jitter; see `Draws`.
    """

    def __init__(self, origin_ns: int, period_s: float, jitter_s: float, *names: int | str) -> None:
        self._period_ns = max(1, round(period_s * 1e9))
        phase_ns = int(Draws(*names, "phase").one_uniform() * self._period_ns)
        self._first_ns = origin_ns + phase_ns
        self._jitter_ns = jitter_s * 1e9
        self._draws = Draws(*names, "jitter")

    def at_ns(self, index: Integers) -> Integers:
        """When each update comes."""
        regular_ns = self._first_ns + index * self._period_ns
        return regular_ns + self._delay_ns(index) if self._jitter_ns else regular_ns

    def last(self, times_ns: Integers) -> tuple[Integers, Integers]:
        """The newest update at each time.

        Args:
            times_ns: shape (n,).

        Returns:
            Its index and when it came, each of shape (n,).
        """
        index = (times_ns - self._first_ns) // self._period_ns
        if not self._jitter_ns:
            return index, self._first_ns + index * self._period_ns
        # The limit on jitter leaves three candidates: this one, the next if early, the one before if late.
        count = len(index)
        both = np.concatenate((index, index + 1))
        came_ns = self.at_ns(both)
        early, late = came_ns[count:] <= times_ns, came_ns[:count] > times_ns
        when_ns = np.where(early, came_ns[count:], came_ns[:count])
        index = index + early - late
        if late.any():
            when_ns[late] = self.at_ns(index[late])
        return index, when_ns

    def _delay_ns(self, index: Integers) -> Integers:
        limit_ns = JITTER_LIMIT * self._period_ns
        delay_ns: Floats = np.clip(self._draws.normal(index) * self._jitter_ns, -limit_ns, limit_ns)
        return np.rint(delay_ns).astype(np.int64)
