"""Channels made by hand: power is a function of time."""

from collections.abc import Callable

import numpy as np

from inference_energy.analysis.power_series import PowerSeries

S = 1_000_000_000
NOTHING = np.zeros(0, dtype=np.int64)


def power_channel(power_w: Callable, duration_s: float, step_s: float = 0.1, **changed) -> PowerSeries:
    """Power readings from 0 to the duration, without a counter."""
    at_s = np.arange(0.0, duration_s + step_s / 2, step_s)
    return _channel(reading="average", times_ns=ns(at_s), power_w=values(power_w, at_s), **changed)


def counter_channel(power_w: Callable, duration_s: float, step_s: float = 0.5, **changed) -> PowerSeries:
    """A counter that is exact when it is read, and power readings every 0.1 s."""
    fine_s = np.arange(0.0, duration_s + 0.0005, 0.001)
    grown_j = np.concatenate(([0.0], np.cumsum(np.diff(fine_s) * values(power_w, fine_s)[:-1])))
    at_s = np.arange(0.0, duration_s + step_s / 2, step_s)
    own = power_channel(power_w, duration_s)
    given = {"reading": "instant", "times_ns": own.times_ns, "power_w": own.power_w, "grade": "counter"}
    counted = {"counter_times_ns": ns(at_s), "counter_j": 1e6 + np.interp(at_s, fine_s, grown_j)}
    return _channel(**{**given, **counted, **changed})


def level(watts: float) -> Callable:
    return lambda at_s: np.full(np.shape(at_s), float(watts))


def flickering(watts: float, by_w: float = 0.5) -> Callable:
    """Even power whose readings all differ."""
    return lambda at_s: watts + by_w * np.sin(7.3 * np.asarray(at_s))


def ns(at_s):
    return np.round(np.asarray(at_s) * S).astype(np.int64)


def values(power_w, at_s):
    return np.asarray(power_w(at_s), dtype=np.float64)


def _channel(**changed) -> PowerSeries:
    given = {
        "source": "nvml",
        "device": "GPU-0",
        "domain": "gpu",
        "grade": "sampled",
        "reading": None,
        "times_ns": NOTHING,
        "power_w": np.zeros(0),
        "counter_times_ns": NOTHING,
        "counter_j": np.zeros(0),
        "empty_times_ns": NOTHING,
        "event_times_ns": NOTHING,
        "event_bits": NOTHING,
        "averaging_s": 1.0,
    }
    return PowerSeries(**{**given, **changed})
