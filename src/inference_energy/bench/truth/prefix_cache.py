"""Prefix cache and request contents: which blocks requests share, where blocks are kept, and how long an answer is.

The live server and the offline simulation both use this module, so the same request has the same fate in both.
Contents are pure functions of their arguments, equal in every process.

As in vLLM, a block whose content has a hash stays usable after its requests have ended, until another request needs the
room; the block unused for longest is evicted first. Blocks of generated tokens are not reused here.
"""

import hashlib
import math
from array import array
from collections import OrderedDict
from collections.abc import Sequence

MEAN_LENGTH_TOKENS = 200.0
LENGTH_SIGMA = 0.8
"""Natural lengths of answers: lognormal with this mean and this standard deviation of the logarithm."""


def block_hashes(token_ids: Sequence[int], block_size: int, salt: str | None = None) -> tuple[int, ...]:
    """Return one value for each full block of a prompt, equal only where all tokens up to the block's end are equal.

    As in vLLM each hash includes the one before it. CPython salts the hashes of texts, but not those of integers and
    tuples of them, so the values are the same in every process.

    Args:
        token_ids: the prompt, ids from 0 up.
        block_size: tokens in a block.
        salt: prompts share blocks only with those of the same salt, as `cache_salt` has it.
    """
    parent = 0 if not salt else int.from_bytes(hashlib.blake2b(salt.encode(), digest_size=7).digest(), "big") + 1
    ids = tuple(token_ids)
    hashes = []
    for start in range(0, len(ids) - block_size + 1, block_size):
        parent = hash((parent, ids[start : start + block_size]))
        hashes.append(parent)
    return tuple(hashes)


def natural_length(content: str | Sequence[int], seed: int) -> int:
    """Return how many tokens the model would generate if nothing stopped it: lognormal, from the prompt and the seed.

    Args:
        content: the prompt as it was sent, a text or token ids.
        seed: the node's.
    """
    first, second = _uniform(content, seed)
    normal = math.sqrt(-2.0 * math.log(first)) * math.cos(2.0 * math.pi * second)  # Box and Muller 1958
    location = math.log(MEAN_LENGTH_TOKENS) - 0.5 * LENGTH_SIGMA**2
    return max(1, round(math.exp(location + LENGTH_SIGMA * normal)))


def output_length(
    content: str | Sequence[int], seed: int, max_tokens: int, *, ignore_eos: bool = False, min_tokens: int = 0
) -> tuple[int, str]:
    """Return the number of generated tokens and the finish reason: `length` if `max_tokens` cut it, else `stop`.

    Args:
        content: the prompt as it was sent.
        seed: the node's.
        max_tokens: most tokens to generate.
        ignore_eos: go on to `max_tokens` whatever the model's own length.
        min_tokens: least tokens to generate.
    """
    if ignore_eos:
        return max_tokens, "length"
    natural = max(min_tokens, natural_length(content, seed))
    return (natural, "stop") if natural <= max_tokens else (max_tokens, "length")


def _uniform(content: str | Sequence[int], seed: int) -> tuple[float, float]:
    """Return two numbers above 0 and below 1."""
    data = content.encode() if isinstance(content, str) else array("q", content).tobytes()
    digest = hashlib.blake2b(data, digest_size=16, salt=seed.to_bytes(16, "little")).digest()
    halves = (int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))
    first, second = ((half + 0.5) / 2.0**64 for half in halves)
    return min(first, 1.0 - 2.0**-53), second


class BlockPool:
    """Pool of blocks for keys and values; only blocks that can be reused have a name.

    Attributes:
        total: number of blocks.
        used: number of blocks that requests hold.
        queries: tokens looked up in the prefix cache.
        hits: tokens that were in it.
    """

    def __init__(self, total: int, block_size: int) -> None:
        self.total = total
        self.block_size = block_size
        self.used = 0
        self.queries = 0
        self.hits = 0
        self._holders: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def free(self) -> int:
        """Number of blocks that can be taken, including cached ones without a holder."""
        return self.total - self.used

    def find(self, hashes: Sequence[int], most: int) -> int:
        """Return how many of the first blocks are cached, at most `most`."""
        count = 0
        for block in hashes[:most]:
            if block not in self._holders:
                break
            count += 1
        return count

    def held_among(self, hashes: Sequence[int]) -> int:
        """Return how many of these blocks a request holds, so that holding them too takes no room."""
        return sum(1 for block in hashes if self._holders.get(block))

    def take(self, count: int) -> None:
        """Take blocks without a name; the caller has checked that they are free."""
        self.used += count
        while len(self._idle) > self.total - self.used:
            evicted, _ = self._idle.popitem(last=False)
            del self._holders[evicted]

    def give(self, count: int) -> None:
        """Give back blocks without a name."""
        self.used -= count

    def hold(self, hashes: Sequence[int]) -> None:
        """Hold named blocks, making those that are not cached."""
        for block in hashes:
            holders = self._holders.get(block)
            if holders:
                self._holders[block] = holders + 1
                continue
            if holders is None:
                self.take(1)
            else:
                del self._idle[block]
                self.used += 1
            self._holders[block] = 1

    def release(self, hashes: Sequence[int], filled: int) -> None:
        """Release named blocks; the last ones are evicted first, since the first are shared most.

        Args:
            hashes: the blocks.
            filled: number of the first blocks that hold their content; the others are dropped unless another request
                holds them.
        """
        for index in range(len(hashes) - 1, -1, -1):
            block = hashes[index]
            self._holders[block] -= 1
            if not self._holders[block]:
                self.used -= 1
                if index < filled:
                    self._idle[block] = None
                else:
                    del self._holders[block]

    def clear(self) -> None:
        """Drop cached blocks that no request holds."""
        for block in self._idle:
            del self._holders[block]
        self._idle.clear()
