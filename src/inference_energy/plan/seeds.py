"""Child random generators, each named, so that adding a draw changes no other.

The draws of a cell are named (cell, draw), with the draws `arrivals`, `prompts`, `lengths`, `outputs`, `think`,
`turns`, `groups` and `answers`; what the cells of a workload share is named (workload, "prefixes") and (workload,
"blocks").
"""

import hashlib

import numpy as np


def generator(seed: int, *names: str) -> np.random.Generator:
    """A generator of its own for each chain of names under a root seed.

    The names enter through SHA-256, so two chains share a stream only if they are equal.
    """
    digest = hashlib.sha256("\x00".join(names).encode()).digest()
    entropy = np.frombuffer(digest, dtype="<u4")
    return np.random.default_rng(np.random.SeedSequence([seed, *(int(word) for word in entropy)]))


def words(seed: int, *names: str) -> tuple[int, int]:
    """Two 64-bit words of a chain of names, for draws that are a hash of their place."""
    drawn = generator(seed, *names).integers(0, 1 << 64, 2, dtype=np.uint64)
    return int(drawn[0]), int(drawn[1])
