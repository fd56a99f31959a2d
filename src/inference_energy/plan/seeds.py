"""Child random generators, each named, so that adding a draw changes no other."""

import hashlib

import numpy as np


def generator(seed: int, *names: str) -> np.random.Generator:
    """A generator of its own for each chain of names under a root seed.

    The names enter through SHA-256, so two chains share a stream only if they are equal.
    """
    digest = hashlib.sha256("\x00".join(names).encode()).digest()
    words = np.frombuffer(digest, dtype="<u4")
    return np.random.default_rng(np.random.SeedSequence([seed, *(int(word) for word in words)]))
