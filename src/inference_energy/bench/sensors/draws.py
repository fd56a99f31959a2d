"""Random numbers that are a pure function of a seed, a name and a whole number.

A sensor that is read one poll at a time and one that is read with an array of polls must show the same, and so must
two processes that look at one sensor; so no state is kept. The bits are those of SplitMix64, whose n-th output is a
hash of seed + n * gamma: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014; constants
of Vigna's public-domain splitmix64.c.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from inference_energy.bench.truth.segments import Floats, Integers

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


class Draws:
    """One stream of random numbers, each reached by its number.

    Args:
        names: what the stream is for, such as a seed, a device and a purpose; other names, another stream.

    Attributes:
        key: the stream's own 64 bits.
    """

    def __init__(self, *names: int | str) -> None:
        digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=8).digest()
        self.key = int.from_bytes(digest, "little")
        # An array, because numpy warns of the overflow of single numbers, which is meant here.
        self._key = np.array([self.key], dtype=np.uint64)

    def bits(self, index: Integers) -> NDArray[np.uint64]:
        """64 random bits for each whole number, also for negative ones; shape of `index`, (n,)."""
        state = index.astype(np.uint64) * _GAMMA + self._key
        state = (state ^ (state >> np.uint64(30))) * _FIRST
        state = (state ^ (state >> np.uint64(27))) * _SECOND
        return np.asarray(state ^ (state >> np.uint64(31)), dtype=np.uint64)

    def uniform(self, index: Integers) -> Floats:
        """Numbers between 0 and 1, both excluded."""
        # 52 bits, so that the half that keeps 0 away still fits the mantissa.
        return ((self.bits(index) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def normal(self, index: Integers) -> Floats:
        """Standard normal numbers, by the inverse of the distribution function."""
        return np.asarray(ndtri(self.uniform(index)), dtype=np.float64)

    def one_uniform(self) -> float:
        """The stream's number 0, for what is drawn once."""
        return float(self.uniform(np.zeros(1, dtype=np.int64))[0])

    def one_normal(self) -> float:
        """Likewise, standard normal."""
        return float(self.normal(np.zeros(1, dtype=np.int64))[0])
