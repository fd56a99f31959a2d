"""Arrival processes: exact ones exactly, all of them sorted, inside, reproducible, and as many as their rate says."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plan.plan_factory import arrival

from inference_energy.config.load.workload import expected_requests
from inference_energy.plan.arrivals.processes import arrival_rate, offsets_ns
from inference_energy.plan.distributions import generator

RATE = st.floats(0.05, 200)
UNIT = st.one_of(
    st.just({}),
    st.just({"kind": "constant"}),
    st.floats(0.1, 20).map(lambda shape: {"kind": "gamma", "burstiness": shape}),
)
STEP = st.fixed_dictionaries({"rate_qps": st.floats(0, 200), "duration_s": st.floats(0.5, 10)})
PROCESSES = st.one_of(
    st.builds(lambda rate: {"process": "poisson", "rate_qps": rate}, RATE),
    st.builds(lambda rate: {"process": "constant", "rate_qps": rate}, RATE),
    st.builds(
        lambda rate, shape: {"process": "gamma", "rate_qps": rate, "burstiness": shape}, RATE, st.floats(0.1, 20)
    ),
    st.builds(
        lambda a, b, unit: {"process": "ramp", "from_qps": a, "to_qps": b, **unit}, st.floats(0, 200), RATE, UNIT
    ),
    st.builds(
        lambda first, steps, unit: {
            "process": "piecewise",
            "steps": [{"rate_qps": 5, "duration_s": first}, *steps],
            **unit,
        },
        st.floats(0.5, 5),
        st.lists(STEP, max_size=4),
        UNIT,
    ),
    st.builds(
        lambda mean, amplitude, period, phase, unit: {
            "process": "day",
            "mean_qps": mean,
            "amplitude": amplitude,
            "period_s": period,
            "phase": phase,
            **unit,
        },
        RATE,
        st.floats(0, 1),
        st.floats(1, 1000),
        st.floats(0, 0.99),
        UNIT,
    ),
)


def draw(keys: dict[str, Any], duration_s: float, seed: int = 1) -> np.ndarray:
    return offsets_ns(arrival(**keys), duration_s, generator(seed, "w", "arrivals"))


@settings(max_examples=150)
@given(keys=PROCESSES, duration_s=st.floats(0.1, 40), seed=st.integers(0, 2**63))
def test_offsets_are_sorted_inside_and_reproducible(keys: dict[str, Any], duration_s: float, seed: int) -> None:
    offsets = draw(keys, duration_s, seed)
    assert offsets.dtype == np.int64
    assert (np.diff(offsets) >= 0).all()
    assert ((offsets >= 0) & (offsets < duration_s * 1e9)).all()
    assert np.array_equal(offsets, draw(keys, duration_s, seed))


@settings(max_examples=60)
@given(keys=PROCESSES, duration_s=st.floats(5, 40))
def test_as_many_as_the_integral_of_the_rate(keys: dict[str, Any], duration_s: float) -> None:
    """The mean over seeds, within four standard errors; a constant process within one arrival."""
    process = arrival(**keys)
    expected = float(arrival_rate(process, duration_s).expected(np.array([duration_s]))[0])
    counts = np.array([len(draw(keys, duration_s, seed)) for seed in range(40)])
    assert abs(counts.mean() - expected) <= 1 + 4 * counts.std(ddof=1) / np.sqrt(len(counts))


@settings(max_examples=100)
@given(keys=PROCESSES, duration_s=st.floats(0.1, 100))
def test_the_time_of_an_expected_count_is_the_inverse(keys: dict[str, Any], duration_s: float) -> None:
    rate = arrival_rate(arrival(**keys), duration_s)
    total = float(rate.expected(np.array([duration_s]))[0])
    counts = np.linspace(0, total, 101)[:-1]
    times_s = rate.time_s(counts)
    assert (np.diff(times_s) >= -1e-9 * duration_s).all()
    assert rate.expected(times_s) == pytest.approx(counts, abs=1e-6 * total + 1e-9)


@settings(max_examples=60)
@given(keys=PROCESSES.filter(lambda keys: keys["process"] not in ("day",)), duration_s=st.floats(0.5, 100))
def test_the_check_of_the_configuration_expects_as_many(keys: dict[str, Any], duration_s: float) -> None:
    process = arrival(**keys)
    expected = float(arrival_rate(process, duration_s).expected(np.array([duration_s]))[0])
    assert expected_requests(process, duration_s) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("process", ["poisson", "gamma", "constant"])
def test_a_longer_window_begins_with_the_arrivals_of_a_shorter_one(process: str) -> None:
    keys = {"process": process, "rate_qps": 30.0} | ({"burstiness": 0.3} if process == "gamma" else {})
    short, long = draw(keys, 10.0), draw(keys, 2000.0)
    assert np.array_equal(short, long[: len(short)])
    assert (long[len(short) :] >= 10e9 - 1).all()


def test_constant_is_even() -> None:
    offsets = draw({"process": "constant", "rate_qps": 4.0}, 2.0)
    assert offsets.tolist() == [round((index + 0.5) / 4 * 1e9) for index in range(8)]


def test_a_constant_ramp_sends_at_the_inverse_of_its_parabola() -> None:
    offsets = draw({"process": "ramp", "from_qps": 0, "to_qps": 10, "kind": "constant"}, 10.0)
    assert offsets / 1e9 == pytest.approx(np.sqrt((np.arange(50) + 0.5) * 2), abs=1e-9)


def test_constant_steps_are_repeated_and_a_pause_is_empty() -> None:
    steps = [{"rate_qps": 2, "duration_s": 1}, {"rate_qps": 0, "duration_s": 1}]
    offsets = draw({"process": "piecewise", "steps": steps, "kind": "constant"}, 6.0)
    assert (offsets / 1e9).tolist() == [0.25, 0.75, 2.25, 2.75, 4.25, 4.75]


def test_a_day_is_busiest_a_quarter_after_its_start() -> None:
    keys = {"process": "day", "mean_qps": 100.0, "amplitude": 1.0, "period_s": 100.0, "kind": "constant"}
    per_quarter = np.histogram(draw(keys, 100.0) / 1e9, bins=4, range=(0, 100))[0]
    assert per_quarter.sum() == 10_000
    swing = 10_000 / 4 * 2 / np.pi  # mean of a sine over its positive half
    assert per_quarter == pytest.approx([2500 + swing, 2500 + swing, 2500 - swing, 2500 - swing], abs=2)
    highest = draw({**keys, "phase": 0.25}, 100.0)
    assert (highest < 25e9).sum() == (highest >= 75e9).sum() == pytest.approx(2500 + swing, abs=2)


def test_bursts_come_with_a_small_shape() -> None:
    """Shape below 1: gaps vary more than exponential ones, as in vLLM, where 1/sqrt(burstiness) is their variation."""
    for shape in (0.25, 1.0, 4.0):
        gaps = np.diff(draw({"process": "gamma", "rate_qps": 100, "burstiness": shape}, 1000.0))
        assert np.std(gaps) / np.mean(gaps) == pytest.approx(shape**-0.5, rel=0.03)


@pytest.mark.parametrize(("first", "second"), [(("a",), ("b",)), (("a", "b"), ("ab",)), (("a", "b"), ("b", "a"))])
def test_named_streams_differ(first: tuple[str, ...], second: tuple[str, ...]) -> None:
    assert generator(1, *first).random() != generator(1, *second).random()
    assert generator(1, *first).random() == generator(1, *first).random()
    assert generator(1, *first).random() != generator(2, *first).random()
