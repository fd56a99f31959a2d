"""Lengths and times have the distribution that is asked for, within its bounds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from scipy import stats

from inference_energy.config.load.arrivals import Time
from inference_energy.config.load.prompts import Length, Turns
from inference_energy.errors import InputError
from inference_energy.plan.distributions import generator, lengths, times_ns, turns

COUNT = 20_000


def drawn(keys: dict[str, Any], count: int = COUNT, seed: int = 1) -> np.ndarray:
    return lengths(TypeAdapter(Length).validate_python(keys), count, generator(seed, "lengths"), "length")


def times_s(keys: dict[str, Any]) -> np.ndarray:
    return times_ns(TypeAdapter(Time).validate_python(keys), COUNT, generator(1, "think")) / 1e9


BOUNDS = st.tuples(st.integers(1, 500), st.integers(0, 3000)).map(lambda two: (two[0], two[0] + two[1]))


@settings(max_examples=80)
@given(
    bounds=BOUNDS,
    place=st.floats(0, 1),
    spread=st.floats(0.1, 500),
    kind=st.sampled_from(["normal", "lognormal", "uniform"]),
)
def test_lengths_stay_within_their_bounds(bounds: tuple[int, int], place: float, spread: float, kind: str) -> None:
    low, high = bounds
    keys: dict[str, Any] = {"distribution": kind, "minimum": low, "maximum": high}
    if kind != "uniform":
        keys |= {"mean": low + place * (high - low), "std": spread}
    made = drawn(keys, 300)
    assert made.dtype == np.int64
    assert made.min() >= low
    assert made.max() <= high


def test_the_default_is_normal_256_64() -> None:
    made = drawn({"distribution": "normal"})
    assert abs(made.mean() - 256) < 4 * 64 / np.sqrt(COUNT)
    assert np.std(made) == pytest.approx(64, rel=0.03)


def test_lognormal_has_the_mean_and_deviation_of_the_lengths_themselves() -> None:
    made = drawn({"distribution": "lognormal", "mean": 300, "std": 240, "maximum": 10**6})
    assert made.mean() == pytest.approx(300, rel=0.03)
    assert np.std(made) == pytest.approx(240, rel=0.06)
    logs = np.log(made[made > 20])
    assert abs(stats.skew(logs)) < 0.1


def test_uniform_holds_both_bounds_and_all_between() -> None:
    values, counts = np.unique(drawn({"distribution": "uniform", "minimum": 3, "maximum": 7}), return_counts=True)
    assert values.tolist() == [3, 4, 5, 6, 7]
    assert stats.chisquare(counts).pvalue > 0.01


def test_fixed() -> None:
    assert set(drawn({"distribution": "fixed", "tokens": 12}).tolist()) == {12}


@pytest.mark.parametrize("column", [None, "output"])
def test_empirical_lengths_come_as_often_as_in_the_file(tmp_path: Path, column: str | None) -> None:
    path = tmp_path / "lengths"
    seen = [7, 7, 7, 20, 100, 100]
    if column:
        path.write_text("\n".join(["input,Output", *(f"1,{value}" for value in seen)]))
    else:
        path.write_text("\n".join(map(str, seen)) + "\n\n")
    made = drawn({"distribution": "empirical", "path": str(path), "column": column})
    values, counts = np.unique(made, return_counts=True)
    assert values.tolist() == [7, 20, 100]
    assert stats.chisquare(counts, np.array([3, 1, 2]) / 6 * COUNT).pvalue > 0.01


@pytest.mark.parametrize(
    ("content", "column", "expected"),
    [
        ("", None, "holds no length"),
        ("5\nmany\n", None, "one whole number a line"),
        ("5\n0\n", None, "holds the length 0"),
        (f"5\n{10**30}\n", None, "lengths:2: '1000000"),
        ("5\n" + "9" * 5000, None, "write one whole number a line"),
        ("5\n1000000000\n", None, "holds the length 1000000000; lengths are from 1 to 10000000"),
        ("a\n1\n1000000000\n", "a", "holds the length 1000000000"),
        ("a,b\n1,2\n", "c", "lacks the column c; found: a, b"),
    ],
)
def test_a_file_that_holds_no_lengths_is_refused(
    tmp_path: Path, content: str, column: str | None, expected: str
) -> None:
    path = tmp_path / "lengths"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"length\.path: .*{expected}"):
        drawn({"distribution": "empirical", "path": str(path), "column": column})
    with pytest.raises(InputError, match=r"length\.path: .*cannot be read"):
        drawn({"distribution": "empirical", "path": str(tmp_path / "none"), "column": column})


def test_turns() -> None:
    def made(**keys: Any) -> np.ndarray:
        return turns(TypeAdapter(Turns).validate_python(keys), COUNT, generator(1, "turns"))

    assert set(made(distribution="fixed", turns=3).tolist()) == {3}
    assert np.unique(made(distribution="uniform", minimum=2, maximum=4)).tolist() == [2, 3, 4]
    geometric = made(distribution="geometric", mean=3.0, maximum=1000)
    assert geometric.mean() == pytest.approx(3, abs=4 * np.std(geometric) / np.sqrt(COUNT))
    assert geometric.min() == 1
    assert made(distribution="geometric", mean=3.0, maximum=4).max() == 4


def test_times() -> None:
    assert set(times_s({"distribution": "fixed", "time_s": 1.5}).tolist()) == {1.5}
    assert stats.kstest(times_s({"distribution": "exponential", "mean_s": 2.0}), "expon", args=(0, 2.0)).pvalue > 0.01
    uniform = times_s({"distribution": "uniform", "minimum_s": 1.0, "maximum_s": 4.0})
    assert stats.kstest(uniform, "uniform", args=(1.0, 3.0)).pvalue > 0.01
    lognormal = times_s({"distribution": "lognormal", "mean_s": 8.0, "std_s": 4.0})
    assert lognormal.mean() == pytest.approx(8.0, rel=0.02)
    assert np.std(lognormal) == pytest.approx(4.0, rel=0.05)
    assert stats.kstest(stats.zscore(np.log(lognormal)), "norm").pvalue > 0.01
