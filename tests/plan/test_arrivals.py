"""Arrival processes are what they claim to be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from inference_energy.config.load import ClosedArrival, ConstantArrival, PoissonArrival
from inference_energy.plan.arrivals import offsets_ns
from inference_energy.plan.seeds import generator


def poisson(rate_qps: float) -> PoissonArrival:
    return PoissonArrival(process="poisson", rate_qps=rate_qps)


def test_poisson_gaps_are_exponential_and_independent() -> None:
    offsets = offsets_ns(poisson(50.0), 2000.0, generator(1, "w", "arrivals"))
    gaps_s = np.diff(offsets) / 1e9
    assert stats.kstest(gaps_s, "expon", args=(0, 1 / 50)).pvalue > 0.01
    assert abs(np.corrcoef(gaps_s[:-1], gaps_s[1:])[0, 1]) < 4 / np.sqrt(len(gaps_s))


def test_poisson_counts_are_not_rescaled() -> None:
    """Clients that rescale gaps to fill the window have a fixed count; a Poisson count varies as its mean."""
    counts = [len(offsets_ns(poisson(5.0), 60.0, generator(seed, "w"))) for seed in range(400)]
    dispersion = np.var(counts, ddof=1) / np.mean(counts)
    assert 0.75 < dispersion < 1.25
    assert abs(np.mean(counts) - 300) < 4 * np.sqrt(300 / 400)


def test_constant_is_even() -> None:
    offsets = offsets_ns(ConstantArrival(process="constant", rate_qps=4.0), 2.0, generator(1, "w"))
    assert offsets.tolist() == [round((index + 0.5) / 4 * 1e9) for index in range(8)]


def test_closed_has_no_times() -> None:
    arrival = ClosedArrival(process="closed", concurrency=3)
    assert offsets_ns(arrival, 10.0, generator(1, "w")) is None


@settings(max_examples=50, deadline=None)
@given(rate=st.floats(0.01, 200), duration_s=st.floats(0.1, 30), seed=st.integers(0, 2**32))
def test_offsets_are_sorted_and_inside(rate: float, duration_s: float, seed: int) -> None:
    offsets = offsets_ns(poisson(rate), duration_s, generator(seed, "w"))
    assert (np.diff(offsets) >= 0).all()
    assert ((offsets >= 0) & (offsets <= duration_s * 1e9)).all()


@pytest.mark.parametrize(("first", "second"), [(("a",), ("b",)), (("a", "b"), ("ab",)), (("a", "b"), ("b", "a"))])
def test_named_streams_differ(first: tuple[str, ...], second: tuple[str, ...]) -> None:
    assert generator(1, *first).random() != generator(1, *second).random()
    assert generator(1, *first).random() == generator(1, *first).random()
    assert generator(1, *first).random() != generator(2, *first).random()
