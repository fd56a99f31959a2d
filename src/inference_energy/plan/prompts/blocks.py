"""Prompts made of named blocks, as Mooncake's traces have them: the same name is the same content, wherever it stands.

The value at a place of a block is a hash of the seed, the block's name and the place (SplitMix64: Steele, Lea, Flood,
OOPSLA 2014), so no block is ever kept, and a prompt depends on no other.
"""

import numpy as np
from numpy.typing import NDArray

from inference_energy.plan.arrivals.traces.trace import Blocks
from inference_energy.plan.seeds import words

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def block_values(
    blocks: Blocks, rows: NDArray[np.int64], lengths: NDArray[np.int64], below: int, seed: int, name: str
) -> NDArray[np.int64]:
    """The values of some prompts, one after another, each from 0 and below `below`.

    A prompt longer than its blocks goes on with values of its own; one that ends within its last block is cut there.

    Args:
        blocks: names of the blocks of all prompts.
        rows: which prompts.
        lengths: of these prompts.
        below: number of values.
        seed: root seed.
        name: whose blocks: other names give other contents.
    """
    row = np.repeat(np.arange(len(rows)), lengths)
    place = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    number, within = np.divmod(place, blocks.block_tokens)
    first, last = blocks.starts[rows], blocks.starts[rows + 1]
    known = number < (last - first)[row]
    index = np.where(known, first[row] + number, 0)
    ids = blocks.ids[index] if len(blocks.ids) else np.zeros(len(row), dtype=np.int64)
    names = np.where(known, ids.astype(np.uint64), (rows[row] * (1 << 20) + number).astype(np.uint64))
    key, own_key = (np.uint64(word) for word in words(seed, name, "blocks"))
    with np.errstate(over="ignore"):
        mixed = _mix(np.bitwise_xor(names, np.where(known, key, own_key)))
        drawn = _mix(mixed + (within.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    # The high half times the number of values: as even as 32 bits allow.
    return ((drawn >> np.uint64(32)) * np.uint64(below) >> np.uint64(32)).astype(np.int64)


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(value ^ (value >> np.uint64(31)))
