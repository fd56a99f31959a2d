"""A slow engine with the rules of the real one: lists of requests, of their blocks and of their tokens, and no sums."""

from dataclasses import dataclass, field

from inference_energy.bench.config import EngineSettings


@dataclass(eq=False)
class Block:
    """Room for `block_size` tokens; `name` says what prompt it is part of."""

    name: int | None = None
    holders: int = 0
    idle_since: int = 0


@dataclass(eq=False)
class Item:
    """One request and all that was ever done for it."""

    number: int
    prompt: int
    output: int
    names: tuple[int, ...]
    tokens: int = 0
    target: int = 0
    decodes_now: bool = False
    made: int = 0
    cached: int = 0
    preemptions: int = 0
    first_ns: int = 0
    last_ns: int = 0
    blocks: list[Block] = field(default_factory=list)
    work: list[tuple[str, int, list[int], bool]] = field(default_factory=list)
    """(kind, step, context of each token, whether the step sampled for it)."""


class ReferenceEngine:
    """What `Engine` must do, from its description."""

    def __init__(self, settings: EngineSettings, blocks: int) -> None:
        self.settings = settings
        self.pool = [Block() for _ in range(blocks)]
        self.waiting: list[Item] = []
        self.running: list[Item] = []
        self.step = -1
        self.under_way = False
        self.clock = 0
        self.queries = 0
        self.hits = 0

    def add(self, item: Item) -> None:
        if not self.settings.enable_prefix_caching:
            item.names = ()
        item.target = item.prompt
        self.waiting.append(item)

    def abort(self, item: Item) -> None:
        if item in self.waiting:
            self.waiting.remove(item)
        if item in self.running:
            self.running.remove(item)
            self.leave(item)

    def begin(self) -> dict[str, float]:
        """One step; returns the row that the log must have."""
        self.step += 1
        self.under_way = True
        size, budget = self.settings.block_size, self.settings.max_num_batched_tokens
        self.worked: list[Item] = []
        self.sampled: list[Item] = []
        preempted = 0
        while sum(1 for item in self.needing_a_block()) > len(self.free()):
            victim = self.running.pop()
            self.leave(victim)
            victim.preemptions += 1
            victim.target = victim.prompt + victim.made
            self.waiting.insert(0, victim)
            preempted += 1
        row = {"prefill": 0, "pairs": 0.0, "context": 0, "decoding": 0, "prompts": 0, "cached": 0}
        for item in self.needing_a_block():
            item.blocks.append(self.take())
        for item in self.running:
            if item.decodes_now:
                item.tokens += 1
                item.work.append(("decode", self.step, [item.tokens], True))
                self.worked.append(item)
                self.sampled.append(item)
                row["decoding"] += 1
                row["context"] += item.tokens
                budget -= 1
        for item in [item for item in self.running if not item.decodes_now]:
            budget -= self.prefill(item, budget, row)
        while budget > 0 and self.waiting and len(self.running) < self.settings.max_num_seqs and not preempted:
            if not self.admit(self.waiting[0]):
                break
            item = self.waiting.pop(0)
            self.running.append(item)
            budget -= self.prefill(item, budget, row)
        for item in self.running:
            assert len(item.blocks) == -(-max(item.target, item.tokens) // size)
        return row | {
            "preemptions": preempted,
            "sequences": len(self.worked),
            "samples": len(self.sampled),
            "running": len(self.running),
            "waiting": len(self.waiting),
            "blocks": self.used,
        }

    def complete(self, now_ns: int) -> list[Item]:
        """End the step; returns who ended, and whose prompt is computed now."""
        changed = []
        self.under_way = False
        for item in [item for item in self.sampled if item in self.running]:
            item.made += 1
            item.first_ns = item.first_ns or now_ns
            item.last_ns = now_ns
            if not item.decodes_now or item.made == item.output:
                changed.append(item)
            item.decodes_now = True
            if item.made == item.output:
                self.running.remove(item)
                self.leave(item)
        return changed

    @property
    def used(self) -> int:
        return sum(1 for block in self.pool if block.holders)

    def free(self) -> list[Block]:
        """Blocks to take, in this order: those without content, then the one that has been idle for longest."""
        free = [block for block in self.pool if not block.holders]
        return sorted(free, key=lambda block: (block.name is not None, block.idle_since))

    def take(self) -> Block:
        block = self.free()[0]
        block.name, block.holders = None, 1
        return block

    def needing_a_block(self) -> list[Item]:
        return [
            item
            for item in self.running
            if item.decodes_now and item.tokens + 1 > len(item.blocks) * self.settings.block_size
        ]

    def named(self, name: int) -> Block | None:
        return next((block for block in self.pool if block.name == name), None)

    def admit(self, item: Item) -> bool:
        size = self.settings.block_size
        needed = -(-item.target // size)
        cached = [self.named(name) for name in item.names]
        taken = sum(1 for block in cached if block is None or not block.holders) + needed - len(cached)
        if taken > len(self.free()):
            return False
        found = 0
        while found < len(cached) and cached[found] and (found + 1) * size < item.target:
            found += 1
        # What is cached is held before room is made for the rest, so that it is not evicted for that.
        for block in cached:
            if block is not None:
                block.holders += 1
        for name, block in zip(item.names, cached, strict=True):
            item.blocks.append(block or self.take())
            item.blocks[-1].name = name
        while len(item.blocks) < needed:
            item.blocks.append(self.take())
        item.tokens = found * size
        if not item.preemptions:
            item.cached = item.tokens
            if item.names:
                self.queries += item.target
                self.hits += item.tokens
        return True

    def prefill(self, item: Item, budget: int, row: dict[str, float]) -> int:
        tokens = min(budget, item.target - item.tokens)
        if not tokens:
            return 0
        contexts = [item.tokens + place + 1 for place in range(tokens)]
        item.tokens += tokens
        done = item.tokens == item.target
        item.work.append(("prefill", self.step, contexts, done))
        self.worked.append(item)
        row["prefill"] += tokens
        row["pairs"] += sum(contexts)  # a token attends to itself and to all before it
        if done:
            self.sampled.append(item)
            if not item.made:
                row["prompts"] += item.prompt
                row["cached"] += item.cached
        return tokens

    def leave(self, item: Item) -> None:
        """Give its blocks back, the last first; a block of a prompt that was not computed holds nothing."""
        filled = len(item.names) if item.decodes_now else item.tokens // self.settings.block_size
        for place in range(len(item.blocks) - 1, -1, -1):
            block = item.blocks[place]
            block.holders -= 1
            if not block.holders:
                self.clock += 1
                block.idle_since = self.clock
                if place >= filled or place >= len(item.names):
                    block.name = None
        item.blocks = []
        item.tokens, item.decodes_now = 0, False
