"""Rows as NVML gives them on an H100: what the sensor shows lags, holds still between updates, and comes apart.

The board refreshes its readings about every 100 ms. The average is that of the last second, the instant that of the
last 25 ms, the counter whole millijoules. Polls come every 100 ms on their own clock, so some read the same value
twice; utilisation, clocks and their event bits stand in one row a second. The counter's call takes milliseconds, so it
has a thread and rows of its own, about every 0.5 s. The memory's power is a third kind of row.
"""

import numpy as np
import pandas as pd
import synthetic

NOISE_W = 4.0
STEP_S = 0.005


def nvml_power(levels: list[tuple[int, int, float]], sources: tuple[synthetic.Source, ...]) -> pd.DataFrame:
    """Power rows of one GPU whose true power is these (start, end, W) with noise that lasts for a second or two."""
    (gpu, *_) = sources
    rng = np.random.default_rng(11)
    start_ns, end_ns = levels[0][0], levels[-1][1]
    # A second before the log and one after it, as the sensor's average reaches back.
    time_s = np.arange(-1.5, (end_ns - start_ns) / 1e9 + 0.5, STEP_S)
    ends_s = np.array([(end - start_ns) / 1e9 for _, end, _ in levels])
    heights = np.array([level for *_, level in levels])
    true_w = heights[np.minimum(np.searchsorted(ends_s, time_s, side="right"), len(heights) - 1)] + _noise(
        len(time_s), rng
    )
    energy_j = np.concatenate(([0.0], np.cumsum(true_w[1:] * STEP_S)))
    updates_s = -0.4 + np.cumsum(rng.uniform(0.091, 0.112, int((time_s[-1] + 0.4) / 0.09)))
    updates_s = updates_s[updates_s < time_s[-1]]

    def at(moments_s):
        return np.interp(moments_s, time_s, energy_j)

    average_w = np.round(at(updates_s) - at(updates_s - 1.0), 3)
    instant_w = np.round((at(updates_s) - at(updates_s - 0.025)) / 0.025, 3)
    counter_j = 7.3e6 + np.round(at(updates_s), 3)
    polls_s = np.arange(0.0, (end_ns - start_ns) / 1e9 + 1e-9, 0.1)
    polls_s = polls_s + np.abs(rng.normal(0, 0.0008, len(polls_s)))
    held = np.searchsorted(updates_s, polls_s, side="right") - 1
    fast = {"power_average_w": average_w[held], "power_instant_w": instant_w[held]}
    fast["driver_timestamp_us"] = ((updates_s[held] + 1e6) * 1e6).astype(np.int64)
    fast = pd.DataFrame({"timestamp_ns": _ns(start_ns, polls_s), "read_latency_us": 14.0, **fast})
    slow = np.arange(len(fast)) % 10 == 0
    extras = {"utilization": 0.97, "memory_used_bytes": 73_000_000_000, "sm_clock_mhz": 1980, "temperature_c": 48.0}
    for column, value in {**extras, "clocks_event_reasons": 0}.items():
        fast[column] = pd.array(np.where(slow, value, None), dtype="Float64")
    asked_s = np.arange(0.0, (end_ns - start_ns) / 1e9 + 1e-9, 0.5)
    took_s = rng.choice([0.0032, 0.0035, 0.021], len(asked_s), p=[0.6, 0.37, 0.03])
    counted_s = asked_s + took_s / 2 + np.abs(rng.normal(0, 0.002, len(asked_s)))
    counted_s[-1] = asked_s[-1]
    counter = {"energy_counter_j": counter_j[np.searchsorted(updates_s, counted_s, side="right") - 1]}
    counter = pd.DataFrame({"timestamp_ns": _ns(start_ns, counted_s), "read_latency_us": took_s * 1e6, **counter})
    memory = pd.DataFrame(
        {"timestamp_ns": fast["timestamp_ns"] + 20_000, "power_average_w": 0.2 * fast["power_average_w"]}
    )
    parts = [part.assign(source="nvml", device=gpu.device, domain="gpu") for part in (fast, counter)]
    log = pd.concat([*parts, memory.assign(source="nvml", device=gpu.device, domain="gpu_memory")])
    log = log.sort_values("timestamp_ns", kind="stable")
    whole = dict.fromkeys(("memory_used_bytes", "sm_clock_mhz", "clocks_event_reasons", "driver_timestamp_us"), "Int64")
    return log.astype(whole)


def _noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise whose neighbours resemble each other over about a second."""
    kernel = np.exp(-np.arange(0, 4, STEP_S))
    noise = np.convolve(rng.standard_normal(count + len(kernel)), kernel, mode="full")[
        len(kernel) : len(kernel) + count
    ]
    return NOISE_W * noise / noise.std()


def _ns(start_ns: int, moments_s: np.ndarray) -> np.ndarray:
    return start_ns + np.round(moments_s * 1e9).astype(np.int64)
