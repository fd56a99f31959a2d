"""Percentiles' intervals hold the population's percentile as often as they say, also where requests hang together."""

import numpy as np
import pytest
from scipy import stats

from inference_energy.analysis.latency import percentiles, values_needed
from inference_energy.analysis.windows import bin_edges

S = 1_000_000_000
WINDOW_S = 60
EDGES = bin_edges(0, WINDOW_S * S)


def even_times(count):
    return np.linspace(0, WINDOW_S * S - 1, count).astype(np.int64)


def covered(draw, percentile, truth, repeats):
    hits = given = 0
    for seed in range(repeats):
        values = draw(np.random.default_rng(seed))
        (found,) = percentiles(values, even_times(len(values)), EDGES, (percentile,))
        if found.interval_95:
            low, high = found.interval_95
            given += 1
            hits += low <= truth <= high
    assert given > 0.7 * repeats
    return hits / given


@pytest.mark.parametrize(("percentile", "count"), [(50, 40), (90, 300), (99, 1500)])
def test_independent_latencies_are_covered(percentile, count):
    truth = stats.lognorm(0.5).ppf(percentile / 100)
    assert covered(lambda rng: rng.lognormal(0, 0.5, count), percentile, truth, 200) >= 0.92


def queued(rng, count=1200, correlation=0.98):
    """Logarithms that hang together over some seconds, as those of requests in a queue do."""
    steps = rng.normal(0, np.sqrt(1 - correlation**2), count)
    values = np.empty(count)
    values[0] = rng.normal()
    for number in range(1, count):
        values[number] = correlation * values[number - 1] + steps[number]
    return np.exp(0.5 * values)


def test_latencies_that_hang_together_are_covered_and_naive_intervals_are_not():
    truth = stats.lognorm(0.5).ppf(0.5)
    assert covered(queued, 50, truth, 150) >= 0.88
    naive = 0
    for seed in range(150):
        values = np.sort(queued(np.random.default_rng(seed)))
        first, last = stats.binom.ppf([0.025, 0.975], len(values), 0.5).astype(int)
        low, high = values[first - 1], values[last]
        naive += low <= truth <= high
    assert naive / 150 < 0.5


def test_the_order_of_requests_does_not_matter():
    rng = np.random.default_rng(1)
    values, times = rng.exponential(1, 500), even_times(500)
    mixed = rng.permutation(500)
    assert percentiles(values, times, EDGES, (50, 95)) == percentiles(values[mixed], times[mixed], EDGES, (50, 95))


def test_another_unit_gives_the_same_in_that_unit():
    rng = np.random.default_rng(2)
    values, times = rng.exponential(1, 400), even_times(400)
    for one, thousand in zip(
        percentiles(values, times, EDGES, (50, 90)), percentiles(1000 * values, times, EDGES, (50, 90)), strict=True
    ):
        assert thousand.value == pytest.approx(1000 * one.value)
        assert thousand.interval_95 == pytest.approx([1000 * bound for bound in one.interval_95])


@pytest.mark.parametrize(("percentile", "count"), [(50, 6), (90, 36), (95, 72), (99, 368), (99.9, 3688)])
def test_a_percentile_needs_values_beyond_it(percentile, count):
    assert values_needed(percentile) == count
    times = np.full(count, S)  # all in one second: nothing can be said of how they hang together
    (enough,) = percentiles(np.arange(count, dtype=float), times, EDGES[:3], (percentile,))
    (few,) = percentiles(np.arange(count - 1, dtype=float), times[1:], EDGES[:3], (percentile,))
    assert enough.interval_95[0] < enough.value < enough.interval_95[1]
    assert few.interval_95 is None


def test_equal_values_have_themselves_as_bounds():
    (found,) = percentiles(np.full(100, 0.1), even_times(100), EDGES, (90,))
    assert (found.value, found.interval_95) == (pytest.approx(0.1), pytest.approx((0.1, 0.1)))
