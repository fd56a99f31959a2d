"""When a power sampler reads: on a grid, a little late each time, and one call after the other.

Two reads in one thread follow each other, so what comes later in a round is later by the calls before it. The middle
of a call is the time its reading is of.
"""

from dataclasses import dataclass

import numpy as np

from inference_energy.bench.sensors.draws import Draws
from inference_energy.bench.sensors.latency import Latency
from inference_energy.bench.truth.segments import Floats, Integers

LATE_MEDIAN_S = 50e-6
LATE_P99_S = 300e-6
"""How late a thread wakes; assumed."""


@dataclass(frozen=True)
class Calls:
    """Calls in a row: when the middle of each is, and how long it takes; shape (n,)."""

    middle_ns: Integers
    latency_s: Floats


class Rounds:
    """Rounds of polls in one thread, all of them at once; take its calls in the order in which they are made.

    Args:
        start_ns, end_ns: the first deadline, and when polling ends.
        period_s: between deadlines.
        late: draws how late each round is.
    """

    def __init__(self, start_ns: int, end_ns: int, period_s: float, late: Draws) -> None:
        deadlines_ns = np.arange(start_ns, end_ns, max(1, int(period_s * 1e9)), dtype=np.int64)
        self.now_ns: Integers = deadlines_ns + _ns(Latency(LATE_MEDIAN_S, LATE_P99_S, late).seconds(deadlines_ns))

    def call(self, latency_s: Floats) -> Calls:
        """The next call of every round, which takes the times given."""
        latency_ns = _ns(latency_s)
        calls = Calls(self.now_ns + latency_ns // 2, latency_s)
        self.now_ns = self.now_ns + latency_ns
        return calls


def _ns(seconds: Floats) -> Integers:
    return np.rint(seconds * 1e9).astype(np.int64)
