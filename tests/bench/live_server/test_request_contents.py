"""What follows from a request's content: the same in every process, shared only where it must be."""

import math
import os
import statistics
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_energy.bench.truth.prefix_cache import (
    LENGTH_SIGMA,
    MEAN_LENGTH_TOKENS,
    block_hashes,
    natural_length,
    output_length,
)

pytestmark = pytest.mark.slow

TOKENS = st.lists(st.integers(0, 200_000), max_size=80)
BLOCK_SIZES = st.sampled_from([1, 4, 16])


@given(TOKENS, TOKENS, BLOCK_SIZES)
def test_blocks_are_shared_as_far_as_all_tokens_are_equal(first: list[int], second: list[int], size: int) -> None:
    hashes, others = block_hashes(first, size), block_hashes(second, size)
    assert len(hashes) == len(first) // size
    equal = 0
    while equal < min(len(hashes), len(others)) and first[: (equal + 1) * size] == second[: (equal + 1) * size]:
        equal += 1
    assert hashes[:equal] == others[:equal]
    assert not set(hashes[equal:]) & set(others[equal:])


@given(st.lists(st.integers(0, 200_000), min_size=16, max_size=80), st.text(min_size=1), st.text(min_size=1))
def test_salts_keep_blocks_apart(tokens: list[int], salt: str, other: str) -> None:
    salted = block_hashes(tokens, 16, salt)
    assert salted == block_hashes(tokens, 16, salt)
    assert not set(salted) & set(block_hashes(tokens, 16))
    assert (salted == block_hashes(tokens, 16, other)) == (salt == other)


def test_they_are_the_same_in_every_process() -> None:
    code = (
        "from inference_energy.bench.truth.prefix_cache import *;"
        "print(block_hashes(range(40), 16), block_hashes(range(40), 16, 'salt'), natural_length('a text', 1),"
        " natural_length([1, 2], 1))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_own_lengths_are_lognormal() -> None:
    lengths = [natural_length([number, 5], 1) for number in range(4000)]
    assert statistics.mean(lengths) == pytest.approx(MEAN_LENGTH_TOKENS, rel=0.05)
    assert statistics.stdev(map(math.log, lengths)) == pytest.approx(LENGTH_SIGMA, rel=0.05)
    assert lengths != [natural_length([number, 5], 2) for number in range(4000)]
    assert min(lengths) >= 1


def test_limits_of_the_length() -> None:
    own = natural_length([3], 1)
    assert output_length([3], 1, own) == (own, "stop")
    assert output_length([3], 1, own - 1) == (own - 1, "length")
    assert output_length([3], 1, own + 9, ignore_eos=True) == (own + 9, "length")
    assert output_length([3], 1, own + 9, min_tokens=own + 5) == (own + 5, "stop")
