"""Random numbers by name and number, and the updates they delay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from inference_energy.bench.sensors.update_clock import CallLatency, RandomStream, UpdateClock
from tests.bench.sensors.waves import ORIGIN_NS

NUMBERS = np.arange(-50_000, 50_000, dtype=np.int64)


def test_bits_are_those_of_splitmix64() -> None:
    draws = RandomStream("any")
    draws._key = np.array([1234567], dtype=np.uint64)
    # The first outputs of the reference implementation for this seed.
    assert draws.bits(np.arange(1, 6)).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_uniforms_and_normals_are_distributed_as_they_say() -> None:
    draws = RandomStream(1, "test")
    uniform = draws.uniform(NUMBERS)
    assert uniform.min() > 0 and uniform.max() < 1
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert stats.kstest(draws.normal(NUMBERS), "norm").pvalue > 1e-3


def test_streams_of_other_names_are_independent_and_the_same_names_agree() -> None:
    first, second = RandomStream(1, "a").normal(NUMBERS), RandomStream(1, "b").normal(NUMBERS)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.02
    assert np.array_equal(first, RandomStream(1, "a").normal(NUMBERS))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1000),
    period_s=st.sampled_from([0.001, 0.02, 0.1, 0.101]),
    jitter_share=st.sampled_from([0.0, 0.02, 0.3, 5.0]),
    start_s=st.floats(-1e4, 1e5),
)
def test_the_last_update_is_the_newest_that_has_come(
    seed: int, period_s: float, jitter_share: float, start_s: float
) -> None:
    ticks = UpdateClock(ORIGIN_NS, period_s, jitter_share * period_s, seed, "ticks")
    times_ns = ORIGIN_NS + round(start_s * 1e9) + np.arange(300, dtype=np.int64) * round(period_s * 0.173e9)
    index, came_ns = ticks.last(times_ns)
    assert (came_ns <= times_ns).all()
    assert (ticks.at_ns(index + 1) > times_ns).all()
    assert np.array_equal(came_ns, ticks.at_ns(index))
    assert (np.diff(ticks.at_ns(np.arange(index[0], index[-1] + 2))) > 0).all()


def test_jitter_has_its_spread_and_does_not_add_up() -> None:
    ticks = UpdateClock(ORIGIN_NS, 0.1, 0.002, 3, "ticks")
    updates_s = (ticks.at_ns(np.arange(20_000)) - ORIGIN_NS) / 1e9
    late_s = updates_s - np.arange(20_000) * 0.1
    assert late_s.std() == pytest.approx(0.002, rel=0.03)
    assert 0 <= late_s.mean() < 0.1
    assert abs(late_s[-1000:].mean() - late_s[:1000].mean()) < 0.001


def test_latency_has_its_median_and_its_99th_percentile() -> None:
    latency_s = CallLatency(0.0032, 0.021, RandomStream(1, "latency")).seconds(NUMBERS)
    assert np.median(latency_s) == pytest.approx(0.0032, rel=0.03)
    assert np.quantile(latency_s, 0.99) == pytest.approx(0.021, rel=0.06)


@pytest.mark.parametrize(("median_s", "p99_s", "expected_s"), [(0.0, 0.02, 0.0), (0.003, 0.001, 0.003)])
def test_latency_without_spread_is_constant(median_s: float, p99_s: float, expected_s: float) -> None:
    assert np.unique(CallLatency(median_s, p99_s, RandomStream(1)).seconds(NUMBERS)).tolist() == [expected_s]
