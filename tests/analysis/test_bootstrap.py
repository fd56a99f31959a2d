"""The block bootstrap: its intervals hold the truth, also where neighbours hang together."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from inference_energy.analysis.uncertainty.budget import block_length, ratio_error, resamples

SERIES = 300


def noise(random, count, phi):
    """AR(1) with a standard deviation of one."""
    steps = random.standard_normal(count + 100)
    return lfilter([1.0], [1.0, -phi], steps)[100:] * math.sqrt(1 - phi**2)


def half_width(error):
    freedom = max(error.dof, 1.0)
    return (stats.t.ppf(0.975, freedom) if math.isfinite(freedom) else 1.96) * error.value


@pytest.mark.parametrize(("count", "phi"), [(60, 0.0), (60, 0.5), (300, 0.5), (300, 0.8)])
def test_intervals_of_a_mean_hold_it(count, phi):
    random = np.random.default_rng(7)
    lengths = np.ones(count)
    held = 0
    for _ in range(SERIES):
        series = 500 + 20 * noise(random, count, phi)
        held += abs(series.mean() - 500) <= half_width(ratio_error(series, lengths))
    assert 0.88 <= held / SERIES <= 0.98


def test_intervals_of_a_ratio_hold_it():
    """Energy = 450 J a second + 0.05 J a token: per token it is 450 / 200 + 0.05."""
    random = np.random.default_rng(8)
    held = 0
    for _ in range(SERIES):
        tokens = np.maximum(200 + 60 * noise(random, 120, 0.6), 0)
        energy_j = 450 + 0.05 * tokens + 5 * noise(random, 120, 0.3)
        held += abs(energy_j.sum() / tokens.sum() - 2.30) <= half_width(ratio_error(energy_j, tokens))
    assert 0.88 <= held / SERIES <= 0.98


def test_what_hangs_together_has_the_larger_error():
    random = np.random.default_rng(9)
    alone, together = (ratio_error(100 + noise(random, 300, phi), np.ones(300)) for phi in (0.0, 0.9))
    assert alone.value == pytest.approx(1 / math.sqrt(300), rel=0.25)
    assert together.value > 2 * alone.value
    assert together.block > alone.block
    assert together.dof == pytest.approx(300 / together.block - 1)


def test_without_spread_there_is_no_error():
    assert ratio_error(np.full(60, 310.0), np.ones(60)).value == 0.0
    tokens = np.arange(1.0, 61.0)
    assert ratio_error(0.2 * tokens, tokens).value == 0.0  # a ratio that is the same in every bin


@pytest.mark.parametrize(("count", "known"), [(0, False), (7, False), (8, True)])
def test_few_bins_say_nothing(count, known):
    random = np.random.default_rng(2)
    found = ratio_error(100 + random.standard_normal(count), np.ones(count))
    assert (found is not None) is known
    assert ratio_error(np.ones(20), np.zeros(20)) is None


def test_the_same_series_has_the_same_error():
    random = np.random.default_rng(3)
    series = 100 + noise(random, 90, 0.5)
    assert ratio_error(series, np.ones(90)) == ratio_error(series.copy(), np.ones(90))
    assert (resamples(30, 4) == resamples(30, 4)).all()
    assert (resamples(30, 4) != resamples(30, 4, stream=1)).any()


def test_resamples_are_whole_blocks_that_may_wrap():
    drawn = resamples(30, 5, 50)
    assert drawn.shape == (50, 30)
    assert set(drawn.ravel()) == set(range(30))
    inside = np.arange(29) % 5 != 4  # places that do not end a block
    assert (((drawn[:, 1:] - drawn[:, :-1]) % 30)[:, inside] == 1).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("series", [np.r_[np.zeros(59), 1.0], np.r_[np.zeros(30), np.ones(30)], np.arange(60.0)])
def test_odd_series_have_a_block_of_at_most_a_sixth(series):
    assert 1 <= block_length(series) <= 10
    assert ratio_error(series, np.ones(60)).value > 0
