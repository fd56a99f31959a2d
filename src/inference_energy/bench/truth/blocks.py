"""The memory for keys and values: blocks, and the prefix cache over them, as in vLLM.

A block whose content is known by a hash stays usable after its requests have ended, until another needs its room; the
one unused for longest goes first. Blocks of generated tokens are not reused here.
"""

from collections import OrderedDict
from collections.abc import Sequence


class BlockPool:
    """Counts blocks; only those that can be reused have a name.

    Attributes:
        total: blocks there are; `used`: those that a request holds.
        queries, hits: tokens looked up in the prefix cache, and found.
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
        """Blocks that can be taken, cached ones without a holder among them."""
        return self.total - self.used

    def find(self, hashes: Sequence[int], most: int) -> int:
        """How many of the first blocks are cached, at most `most`."""
        count = 0
        for block in hashes[:most]:
            if block not in self._holders:
                break
            count += 1
        return count

    def held_among(self, hashes: Sequence[int]) -> int:
        """How many of these blocks someone holds, so that holding them too takes no room."""
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
        """Let go of named blocks; the last ones are evicted first, for the first are shared most.

        Args:
            hashes: the blocks.
            filled: how many of the first ones hold their content; the others are forgotten where nobody else holds
                them.
        """
        for place in range(len(hashes) - 1, -1, -1):
            block = hashes[place]
            self._holders[block] -= 1
            if not self._holders[block]:
                self.used -= 1
                if place < filled:
                    self._idle[block] = None
                else:
                    del self._holders[block]

    def clear(self) -> None:
        """Forget what is cached and not held."""
        for block in self._idle:
            del self._holders[block]
        self._idle.clear()
