"""Draws from distributions, by named random generators: lengths, numbers of turns, and times.

Each generator is a child of the seed, so that adding a draw changes no other. The draws of a cell are named (cell,
draw), with the draws `arrivals`, `prompts`, `lengths`, `outputs`, `think`, `turns`, `groups` and `answers`; what the
cells of a workload share is named (workload, "prefixes") and (workload, "blocks").
"""

import hashlib
import re

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import ExponentialTime, FixedTime, LognormalTime, Time, UniformTime
from inference_energy.config.load.prompts import (
    MOST_TOKENS,
    EmpiricalLength,
    FixedLength,
    FixedTurns,
    GeometricTurns,
    Length,
    LognormalLength,
    NormalLength,
    Turns,
    UniformLength,
    UniformTurns,
)
from inference_energy.contracts.outside import path_name
from inference_energy.errors import InputError
from inference_energy.plan.tables import read_columns, shown, text_lines


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return the generator of a chain of names under a root seed.

    The names enter through SHA-256, so two chains share a stream only if they are equal.
    """
    digest = hashlib.sha256("\x00".join(names).encode()).digest()
    entropy = np.frombuffer(digest, dtype="<u4")
    return np.random.default_rng(np.random.SeedSequence([seed, *(int(word) for word in entropy)]))


def seed_words(seed: int, *names: str) -> tuple[int, int]:
    """Return two 64-bit words of a chain of names, for draws that are a hash of their position."""
    drawn = generator(seed, *names).integers(0, 1 << 64, 2, dtype=np.uint64)
    return int(drawn[0]), int(drawn[1])


def lengths(config: Length, count: int, random: np.random.Generator, key: str) -> NDArray[np.int64]:
    """Draw lengths in tokens, at least 1; normal and lognormal ones are rounded, then clipped to their bounds.

    Args:
        config: the distribution.
        count: number of draws.
        random: generator of the draws.
        key: configuration key of the distribution.

    Raises:
        InputError: the file of an empirical distribution cannot be read or is not a list of lengths.
    """
    match config:
        case FixedLength():
            return np.full(count, config.tokens, dtype=np.int64)
        case UniformLength():
            return random.integers(config.minimum, config.maximum, count, endpoint=True)
        case EmpiricalLength():
            observed = _observed(config, key)
            return observed[random.integers(0, len(observed), count)]
        case NormalLength():
            drawn = random.normal(config.mean, config.std, count)
        case LognormalLength():
            drawn = lognormal(config.mean, config.std, count, random)
    return np.clip(np.rint(drawn), config.minimum, config.maximum).astype(np.int64)


def turns(config: Turns, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw numbers of turns, at least 1."""
    match config:
        case FixedTurns():
            return np.full(count, config.turns, dtype=np.int64)
        case UniformTurns():
            return random.integers(config.minimum, config.maximum, count, endpoint=True)
        case GeometricTurns():
            return np.minimum(random.geometric(1.0 / config.mean, count), config.maximum).astype(np.int64)


def times_ns(config: Time, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw times in ns, at least 0."""
    match config:
        case FixedTime():
            times_s = np.full(count, config.time_s)
        case ExponentialTime():
            times_s = random.exponential(config.mean_s, count)
        case LognormalTime():
            times_s = lognormal(config.mean_s, config.std_s, count, random)
        case UniformTime():
            times_s = random.uniform(config.minimum_s, config.maximum_s, count)
    return np.rint(times_s * 1e9).astype(np.int64)


def lognormal(mean: float, std: float, count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Draw from the lognormal distribution of this mean and standard deviation.

    The parameters of the logarithm follow from the moments: sigma^2 = ln(1 + (std/mean)^2), mu = ln(mean) - sigma^2/2.
    """
    variance = np.log1p((std / mean) ** 2)
    return random.lognormal(np.log(mean) - variance / 2.0, np.sqrt(variance), count)


def _observed(config: EmpiricalLength, key: str) -> NDArray[np.int64]:
    if config.column is None:
        observed = _lines(config.path, key)
    else:
        batches = read_columns(config.path, {config.column: pa.int64()}, f"{key}.path")
        columns = [batch.column(0).drop_null().to_numpy(zero_copy_only=False) for batch in batches]
        observed = np.concatenate(columns) if columns else np.empty(0, np.int64)
    if not len(observed):
        raise InputError(f"{config.path} holds no length; write one whole number a line", key=f"{key}.path")
    for length in (int(observed.min()), int(observed.max())):
        if not 1 <= length <= MOST_TOKENS:
            text = f"{config.path} holds the length {length}; lengths are from 1 to {MOST_TOKENS}"
            raise InputError(text, key=f"{key}.path")
    return observed


def _lines(path: str, key: str) -> NDArray[np.int64]:
    values: list[int] = []
    for number, text in enumerate(text_lines(path, f"{key}.path"), start=1):
        for word in text.split():
            # Python refuses thousands of digits by itself, and an array more than 18.
            if not re.fullmatch(r"[-+]?[0-9]{1,18}", word):
                problem = f"{shown(word)}; write one whole number a line, or name the column of a CSV"
                raise InputError(f"{path_name(path)}:{number}: {problem}", key=f"{key}.path")
            values.append(int(word))
    return np.array(values, dtype=np.int64)
