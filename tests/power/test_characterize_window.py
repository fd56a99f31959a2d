"""The window fit on responses whose width and delay are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_energy.acquire.power.characterize.averaging_window import GROUPS, SHORTEST_S, WindowFit, fit_window
from inference_energy.acquire.power.characterize.sensor_timing import Floats
from inference_energy.acquire.power.characterize.square_wave import LEAD_S, Wave, steps_for

pytestmark = pytest.mark.slow

REST_W, STEP_W = 120.0, 560.0
WARMS_W_PER_S = 0.4


def edges_in_ns(steps: list[float], start_ns: int) -> list[tuple[int, bool]]:
    """When a load on this schedule changes if it begins with its first rest at `start_ns`."""
    ends_ns = start_ns + np.rint(np.cumsum(steps) * 1e9).astype(np.int64)
    return [(int(time_ns), index % 2 == 0) for index, time_ns in enumerate(ends_ns[:-1])]


def wave_of(duration_s: float) -> tuple[Wave, float]:
    steps = steps_for(duration_s)
    return Wave.from_edges(edges_in_ns(steps, 0), 0), sum(steps)


def readings(
    wave: Wave, duration_s: float, window_s: float, delay_s: float, seed: int = 0, noise_w: float = 0.5
) -> tuple[Floats, Floats]:
    """Updates about every 100 ms of a sensor with that window, on a card that warms a little."""
    draw = np.random.default_rng(seed)
    times_s = np.cumsum(0.1 + 0.003 * draw.standard_normal(int(duration_s / 0.1)))
    end_s, start_s = times_s - delay_s, times_s - delay_s - window_s
    busy_s = wave.busy_s(end_s) - wave.busy_s(start_s)
    power_w = REST_W + STEP_W * busy_s / window_s + WARMS_W_PER_S * times_s
    return times_s, power_w + noise_w * draw.standard_normal(len(times_s))


def fitted(times_s: Floats, power_w: Floats, wave: Wave) -> WindowFit:
    fit = fit_window(times_s, power_w, wave)
    assert fit is not None
    return fit


@settings(max_examples=12)
@given(
    window_s=st.floats(0.15, 2.5),
    delay_s=st.floats(0.0, 0.25),
    seed=st.integers(0, 1000),
)
def test_width_and_delay_are_found(window_s: float, delay_s: float, seed: int) -> None:
    wave, duration_s = wave_of(30)
    fit = fitted(*readings(wave, duration_s, window_s, delay_s, seed), wave)
    assert fit.why_no_window() is None
    assert fit.window_s == pytest.approx(window_s, rel=0.01, abs=0.003)
    assert fit.delay_s == pytest.approx(delay_s, abs=0.005)
    assert fit.step_w == pytest.approx(STEP_W, rel=0.02)
    assert 0 < fit.u_window_s < 0.01


def test_the_interval_covers_the_width() -> None:
    wave, duration_s = wave_of(20)
    hits = 0
    for seed in range(20):
        fit = fitted(*readings(wave, duration_s, 1.0, 0.05, seed, noise_w=3.0), wave)
        hits += abs(fit.window_s - 1.0) < fit.coverage_factor * fit.u_window_s
    assert hits >= 16, "a 95 % interval misses more than 4 of 20 in less than 1 of 300 cases"


def test_a_short_window_is_found_where_enough_edges_tell_of_it() -> None:
    wave, duration_s = wave_of(60)
    fit = fitted(*readings(wave, duration_s, 0.025, 0.01), wave)
    assert fit.why_no_window() is None
    assert fit.window_s == pytest.approx(0.025, rel=0.2)


def test_an_instantaneous_sensor_has_no_window_that_could_be_told() -> None:
    wave, duration_s = wave_of(20)
    fit = fitted(*readings(wave, duration_s, 1e-5, 0.01), wave)
    assert "not resolvable" in str(fit.why_no_window())
    assert fit.why_no_response() is None, "its step can still be told"
    assert fit.step_w == pytest.approx(STEP_W, rel=0.02)


def test_a_response_that_is_no_boxcars_is_not_called_one() -> None:
    wave, duration_s = wave_of(30)
    times_s, _ = readings(wave, duration_s, 1.0, 0.0)
    fit = fitted(times_s, REST_W + STEP_W * np.sin(7 * times_s) ** 2, wave)
    assert fit.why_no_window() is not None


def test_without_a_step_there_is_no_window() -> None:
    wave, duration_s = wave_of(20)
    times_s, power_w = readings(wave, duration_s, 1.0, 0.0)
    fit = fitted(times_s, REST_W + 0.5 * np.random.default_rng(1).standard_normal(len(power_w)), wave)
    assert "no clear step" in str(fit.why_no_window())


def test_too_few_readings_give_no_fit() -> None:
    wave, _ = wave_of(20)
    assert fit_window(np.arange(10.0), np.arange(10.0), wave) is None
    none: Floats = np.empty(0)
    assert fit_window(np.arange(100.0), np.arange(100.0), Wave(none, none)) is None


def test_the_model_is_the_response() -> None:
    wave, duration_s = wave_of(20)
    times_s, power_w = readings(wave, duration_s, 1.0, 0.02, noise_w=0.0)
    fit = fitted(times_s, power_w, wave)
    assert np.abs(fit.model_w(times_s, wave) - power_w).max() < 2.0
    assert fit.misfit_w < 0.5
    assert fit.window_s > SHORTEST_S and GROUPS > 5


def test_the_schedule_can_be_cut_at_rest_and_takes_about_as_long_as_asked() -> None:
    for duration_s in (11.0, 33.0, 120.0):
        steps = steps_for(duration_s)
        assert sum(steps) == pytest.approx(duration_s, rel=0.45)
        assert len(steps) % 2 == 1, "it ends at rest"
        wave = Wave.from_edges(edges_in_ns(steps, 0), 0)
        cuts_s = wave.cuts_s()
        assert cuts_s[0] == pytest.approx(LEAD_S / 2)
        assert len(cuts_s) >= 2
        for offset_s in (-0.6, 0.0, 0.6):
            assert not wave.works(cuts_s + offset_s).any()
    assert steps_for(30) == steps_for(30), "the same each time"


def test_the_wave_counts_its_load() -> None:
    wave = Wave(np.array([1.0, 3.0, 4.0]), np.array([1.0, 0.0, 1.0]))
    times_s = np.array([0.0, 1.0, 2.0, 3.5, 5.0])
    assert wave.busy_s(times_s).tolist() == [0, 0, 1, 2, 3]
    assert wave.works(times_s).tolist() == [0, 1, 1, 0, 1]
    assert wave.share(np.array([3.0]), 4.0, 0.0).tolist() == [0.5]
