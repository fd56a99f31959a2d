"""Clocks of the virtual sensors: random streams, sensor updates, call latencies, and rounds of polls.

A sensor that is polled once and one that is polled with an array of times must show the same, and so must two processes
that look at one sensor. So no state is kept: every random number is a pure function of a seed, a name and a whole
number. The bits are those of SplitMix64, whose n-th output is a hash of seed + n * gamma: Steele, Lea, Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014; constants of Vigna's public-domain splitmix64.c.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from inference_energy.bench.truth.ledger import Floats, Integers

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)

JITTER_LIMIT = 0.45
"""Largest jitter of an update as a share of the period, so that updates keep their order."""

P99_Z = 2.3263478740408408

LATE_MEDIAN_S = 50e-6
LATE_P99_S = 300e-6
"""Lateness of a thread's wake-up; assumed."""


class RandomStream:
    """One stream of random numbers, each reached by its number.

    Args:
        names: identity of the stream, such as a seed, a device and a purpose.

    Attributes:
        key: the stream's own 64 bits.
    """

    def __init__(self, *names: int | str) -> None:
        digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=8).digest()
        self.key = int.from_bytes(digest, "little")
        # An array, because numpy warns of the overflow of single numbers, which is meant here.
        self._key = np.array([self.key], dtype=np.uint64)

    def bits(self, index: Integers) -> NDArray[np.uint64]:
        """Return 64 random bits for each whole number, negative ones too; shape (n,)."""
        state = index.astype(np.uint64) * _GAMMA + self._key
        state = (state ^ (state >> np.uint64(30))) * _FIRST
        state = (state ^ (state >> np.uint64(27))) * _SECOND
        return np.asarray(state ^ (state >> np.uint64(31)), dtype=np.uint64)

    def uniform(self, index: Integers) -> Floats:
        """Return numbers between 0 and 1, both excluded."""
        # 52 bits, so that the half that keeps 0 away still fits the mantissa.
        return ((self.bits(index) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def normal(self, index: Integers) -> Floats:
        """Return standard normal numbers, by the inverse of the distribution function."""
        return np.asarray(ndtri(self.uniform(index)), dtype=np.float64)

    def one_uniform(self) -> float:
        """Return the stream's number 0, for a value that is drawn once."""
        return float(self.uniform(np.zeros(1, dtype=np.int64))[0])

    def one_normal(self) -> float:
        """Return the stream's standard normal number 0."""
        return float(self.normal(np.zeros(1, dtype=np.int64))[0])


class UpdateClock:
    """Updates of one sensor: update k comes at origin + phase + k * period + jitter k, also for negative k.

    Args:
        origin_ns: when the node began.
        period_s: mean time between updates.
        jitter_s: standard deviation of an update's own delay.
        names: of the stream that draws phase and jitter; see `RandomStream`.
    """

    def __init__(self, origin_ns: int, period_s: float, jitter_s: float, *names: int | str) -> None:
        self._period_ns = max(1, round(period_s * 1e9))
        phase_ns = int(RandomStream(*names, "phase").one_uniform() * self._period_ns)
        self._first_ns = origin_ns + phase_ns
        self._jitter_ns = jitter_s * 1e9
        self._draws = RandomStream(*names, "jitter")

    def at_ns(self, index: Integers) -> Integers:
        """Return the time of each update."""
        regular_ns = self._first_ns + index * self._period_ns
        return regular_ns + self._delay_ns(index) if self._jitter_ns else regular_ns

    def last(self, times_ns: Integers) -> tuple[Integers, Integers]:
        """Return the newest update before each time.

        Args:
            times_ns: shape (n,).

        Returns:
            The index and the time of the update, each of shape (n,).
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


class CallLatency:
    """Latencies of one kind of call, lognormal from their median and 99th percentile.

    t = median * exp(sigma z),    sigma = ln(p99 / median) / 2.326...

    Args:
        median_s: median.
        p99_s: 99th percentile; a value below the median is taken as the median: no spread.
        draws: draws the latency of each call.
    """

    def __init__(self, median_s: float, p99_s: float, draws: RandomStream) -> None:
        self._median_s = median_s
        self._sigma = math.log(max(p99_s / median_s, 1.0)) / P99_Z if median_s > 0 else 0.0
        self._draws = draws

    def seconds(self, calls: Integers) -> Floats:
        """Return the duration of each call.

        Args:
            calls: a whole number that names each call, such as its time in ns, shape (n,).
        """
        return self._median_s * np.exp(self._sigma * self._draws.normal(calls))


@dataclass(frozen=True)
class PollCalls:
    """Calls in a row: the middle of each, and how long it takes; shape (n,)."""

    middle_ns: Integers
    latency_s: Floats


class PollRounds:
    """Rounds of polls in one thread, on a grid of deadlines; take the calls in the order in which they are made.

    Reads in one thread follow each other, so each is later by the calls before it in its round. A reading belongs to
    the middle of its call.

    Args:
        start_ns: the first deadline.
        end_ns: when polling ends.
        period_s: time between deadlines.
        late: draws the lateness of each round.
    """

    def __init__(self, start_ns: int, end_ns: int, period_s: float, late: RandomStream) -> None:
        deadlines_ns = np.arange(start_ns, end_ns, max(1, int(period_s * 1e9)), dtype=np.int64)
        self.now_ns: Integers = deadlines_ns + _ns(CallLatency(LATE_MEDIAN_S, LATE_P99_S, late).seconds(deadlines_ns))

    def call(self, latency_s: Floats) -> PollCalls:
        """Return the next call of every round, with the given durations."""
        latency_ns = _ns(latency_s)
        calls = PollCalls(self.now_ns + latency_ns // 2, latency_s)
        self.now_ns = self.now_ns + latency_ns
        return calls


def _ns(seconds: Floats) -> Integers:
    return np.rint(seconds * 1e9).astype(np.int64)
