"""The step load: on which schedule it switches, and what a sensor with a window makes of it."""

from typing import NamedTuple

import numpy as np

from inference_energy.acquire.power.characterise.polls import Floats, Integers

LEAD_S = 1.5
LONG_BUSY_S, LONG_REST_S = 1.6, 1.8
QUICK_STEPS, QUICKEST_S, SLOWEST_S = 8, 0.2, 0.4
_CYCLE_S = LONG_BUSY_S + QUICK_STEPS * (QUICKEST_S + SLOWEST_S) / 2 + LONG_REST_S
_SEED = 20260


def steps_for(duration_s: float) -> list[float]:
    """Lengths in s of rest, load, rest, ..., rest that take about `duration_s`, at least one cycle.

    A cycle is a long load, which a slow window fills; quick changes of irregular length, whose edges fall at all
    moments of a sensor's own period; and a long rest, in whose middle energies can be cut.
    """
    draw = np.random.default_rng(_SEED)
    cycles = max(1, int((duration_s - LEAD_S) / _CYCLE_S))
    steps = [LEAD_S]
    for _ in range(cycles):
        quick = [round(float(length_s), 3) for length_s in draw.uniform(QUICKEST_S, SLOWEST_S, QUICK_STEPS)]
        steps += [LONG_BUSY_S, *quick, LONG_REST_S]
    return steps


class Wave(NamedTuple):
    """A load that was switched.

    Attributes:
        edge_s: when it changed, ascending, shape (n,). Before the first edge it was at rest.
        busy: whether it worked from then on, shape (n,).
    """

    edge_s: Floats
    busy: Floats

    @classmethod
    def of(cls, edges: list[tuple[int, bool]], origin_ns: int) -> "Wave":
        """From (monotonic ns, busy), in s since `origin_ns`."""
        times_ns = np.array([time_ns for time_ns, _ in edges], dtype=np.int64)
        return cls((times_ns - origin_ns) / 1e9, np.array([busy for _, busy in edges], dtype=np.float64))

    def busy_s(self, times_s: Floats) -> Floats:
        """How long it has worked up to each time."""
        whole_s = np.concatenate(([0.0], np.cumsum(np.diff(self.edge_s) * self.busy[:-1])))
        place = np.searchsorted(self.edge_s, times_s, side="right") - 1
        inside = np.maximum(place, 0)
        since_s = (times_s - self.edge_s[inside]) * self.busy[inside]
        return np.where(place < 0, 0.0, whole_s[inside] + since_s)

    def works(self, times_s: Floats) -> Floats:
        """1 where it works, else 0."""
        place = np.searchsorted(self.edge_s, times_s, side="right") - 1
        return np.where(place < 0, 0.0, self.busy[np.maximum(place, 0)])

    def share(self, times_s: Floats, window_s: float, delay_s: float) -> Floats:
        """The share of load in the window of this length that ended `delay_s` before each time."""
        end_s = times_s - delay_s
        return (self.busy_s(end_s) - self.busy_s(end_s - window_s)) / window_s

    def cuts_s(self) -> Floats:
        """Moments at rest at which energies may be cut: in the middle of the long rests, and before the first load."""
        rest = self.busy == 0
        ends = np.append(self.edge_s[1:], self.edge_s[-1] + LONG_REST_S)
        long = rest & (ends - self.edge_s > SLOWEST_S + 0.5)
        first = self.edge_s[:1] - LEAD_S / 2
        return np.concatenate((first, ((self.edge_s + ends) / 2)[long]))


def edges_in_ns(steps: list[float], start_ns: int) -> list[tuple[int, bool]]:
    """When a load on this schedule changes if it begins with its first rest at `start_ns`."""
    ends_ns = start_ns + np.rint(np.cumsum(steps) * 1e9).astype(np.int64)
    times: Integers = ends_ns[:-1]
    return [(int(time_ns), index % 2 == 0) for index, time_ns in enumerate(times)]
