"""Blocks of keys and values: who holds them, which are found again, which go first."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from inference_energy.bench.truth.prefix_cache import BlockPool


def pool_with(*prompts: tuple[int, ...], total: int = 8) -> BlockPool:
    """A pool in which these prompts were computed, one after the other, and have ended."""
    pool = BlockPool(total, 16)
    for names in prompts:
        pool.hold(names)
        pool.release(names, len(names))
    return pool


def found(pool: BlockPool, names: tuple[int, ...]) -> int:
    return pool.find(names, len(names))


def test_prompt_is_found_after_its_holder_has_ended() -> None:
    pool = pool_with((1, 2, 3))
    assert pool.used == 0
    assert pool.free == pool.total
    assert found(pool, (1, 2, 3, 4)) == 3
    assert found(pool, (1, 9, 3)) == 1
    assert found(pool, (9, 2, 3)) == 0
    assert pool.find((1, 2, 3), 2) == 2


def test_held_twice_takes_room_once() -> None:
    pool = BlockPool(8, 16)
    pool.hold((1, 2))
    pool.hold((1, 2, 3))
    assert pool.used == 3
    assert pool.held_among((1, 2, 3, 4)) == 3
    pool.release((1, 2), 2)
    assert pool.used == 3
    pool.release((1, 2, 3), 3)
    assert pool.used == 0
    assert pool.held_among((1, 2, 3)) == 0
    assert found(pool, (1, 2, 3)) == 3


def test_unused_for_longest_goes_first_and_its_last_block_before_its_first() -> None:
    pool = pool_with((1, 2), (3, 4), total=4)
    pool.take(1)
    assert (found(pool, (1, 2)), found(pool, (3, 4))) == (1, 2)
    pool.take(1)
    assert (found(pool, (1, 2)), found(pool, (3, 4))) == (0, 2)
    pool.take(1)
    assert found(pool, (3, 4)) == 1


def test_use_makes_a_prompt_young_again() -> None:
    pool = pool_with((1, 2), (3, 4), (1, 2), total=4)
    pool.take(2)
    assert (found(pool, (1, 2)), found(pool, (3, 4))) == (2, 0)


def test_what_is_held_is_not_evicted() -> None:
    pool = pool_with((1, 2), total=4)
    pool.hold((1, 2))
    pool.take(2)
    assert pool.free == 0
    assert found(pool, (1, 2)) == 2


def test_empty_room_is_taken_before_anything_is_evicted() -> None:
    pool = pool_with((1, 2), total=4)
    pool.take(2)
    assert found(pool, (1, 2)) == 2


def test_unfilled_blocks_are_forgotten_unless_somebody_else_holds_them() -> None:
    pool = BlockPool(8, 16)
    pool.hold((1, 2, 3))
    pool.release((1, 2, 3), 1)
    assert pool.used == 0
    assert found(pool, (1, 2, 3)) == 1
    pool.hold((1, 2, 3))
    pool.hold((1, 2, 3))
    pool.release((1, 2, 3), 1)
    assert found(pool, (1, 2, 3)) == 3


def test_clear_forgets_what_nobody_holds() -> None:
    pool = pool_with((1, 2, 3))
    pool.hold((1,))
    pool.take(2)
    pool.clear()
    assert found(pool, (1, 2, 3)) == 1
    assert pool.used == 3
    pool.release((1,), 1)
    assert found(pool, (1,)) == 1


class Pools(RuleBasedStateMachine):
    """Holds, takes and gives in any order, as an engine may do them: only what is free."""

    holds = Bundle("holds")
    takes = Bundle("takes")

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(10, 16)
        self.held: list[tuple[int, ...]] = []
        self.taken = 0

    @rule(target=holds, family=st.integers(0, 3), length=st.integers(1, 5))
    def hold(self, family: int, length: int) -> tuple[tuple[int, ...], int]:
        names = tuple(10 * family + place for place in range(length))
        if length - self.pool.held_among(names) > self.pool.free:
            return (), 0
        self.pool.hold(names)
        self.held.append(names)
        assert found(self.pool, names) == length
        return names, length

    @rule(held=consumes(holds), data=st.data())
    def release(self, held: tuple[tuple[int, ...], int], data: st.DataObject) -> None:
        names, _ = held
        if names:
            self.held.remove(names)
            filled = data.draw(st.integers(0, len(names)))
            self.pool.release(names, filled)
            assert found(self.pool, names) >= filled

    @rule(target=takes, count=st.integers(0, 6))
    def take(self, count: int) -> int:
        if count > self.pool.free:
            return 0
        self.pool.take(count)
        self.taken += count
        return count

    @rule(count=consumes(takes))
    def give(self, count: int) -> None:
        self.pool.give(count)
        self.taken -= count

    @rule()
    def clear(self) -> None:
        self.pool.clear()
        assert all(found(self.pool, names) == len(names) for names in self.held)

    @invariant()
    def blocks_add_up(self) -> None:
        held = {name for names in self.held for name in names}
        assert self.pool.used == self.taken + len(held) <= self.pool.total
        assert self.pool.free == self.pool.total - self.pool.used
        cached = [name for family in range(4) for name in range(10 * family, 10 * family + 5)]
        remembered = sum(1 for name in cached if self.pool.find((name,), 1))
        # Remembered ones without a holder live in the free room.
        assert remembered - len(held) <= self.pool.free
        assert all(self.pool.find((name,), 1) for name in held)


TestPools = Pools.TestCase
TestPools.settings = settings(max_examples=60, stateful_step_count=30)


@pytest.mark.parametrize("total", [1, 5])
def test_whole_pool_can_be_taken_and_given_back(total: int) -> None:
    pool = pool_with((1,), total=total)
    pool.take(total)
    assert (pool.free, found(pool, (1,))) == (0, 0)
    pool.give(total)
    assert pool.free == total
