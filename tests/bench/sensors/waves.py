"""True powers to look at, and the energy that a log of readings adds up to."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from inference_energy.bench.config import NvmlSensor, SensorFault
from inference_energy.bench.sensors.nvml import GpuSensor
from inference_energy.bench.truth.ledger import Floats, Integers
from inference_energy.bench.truth.power_trace import TRACE_DTYPE, Steps, TruePower

ORIGIN_NS = 7_000_000_123_456_789


def at(*seconds: float) -> Integers:
    """Times so many seconds after the origin."""
    return np.array([ORIGIN_NS + round(second * 1e9) for second in seconds], dtype=np.int64)


def every(period_s: float, start_s: float, end_s: float) -> Integers:
    """Times on a grid, both ends included where they fit."""
    return ORIGIN_NS + np.arange(round(start_s * 1e9), round(end_s * 1e9) + 1, round(period_s * 1e9), dtype=np.int64)


def constant(power_w: float) -> Steps:
    return Steps(at(0.0), np.array([power_w]))


def square(high_w: float, low_w: float, high_s: float, low_s: float, length_s: float = 120.0) -> Steps:
    """High, low, high, low, ... from the origin on."""
    count = int(length_s / (high_s + low_s))
    starts_s = (np.arange(count)[:, None] * (high_s + low_s) + np.array([0.0, high_s])).ravel()
    return Steps(ORIGIN_NS + np.rint(starts_s * 1e9).astype(np.int64), np.tile([high_w, low_w], count))


def gpu(
    truth: TruePower, seed: int = 1, device: int = 0, faults: Sequence[SensorFault] = (), **sensor: Any
) -> GpuSensor:
    return GpuSensor(
        NvmlSensor(**sensor), truth, device=device, seed=seed, origin_ns=ORIGIN_NS, faults=faults, wall_ns=10**18
    )


def trapezoid_j(times_ns: Integers, power_w: Floats) -> float:
    return float(np.trapezoid(power_w, (times_ns - times_ns[0]) / 1e9))


def between_j(truth: TruePower, start_ns: int, end_ns: int) -> float:
    before_j, after_j = truth.energy_j(np.array([start_ns, end_ns], dtype=np.int64))
    return float(after_j - before_j)


def trace(starts_s: Sequence[float], gpu_w: Sequence[float], host_w: Sequence[float] | None = None) -> Any:
    rows = np.zeros(len(starts_s), dtype=TRACE_DTYPE)
    rows["start_ns"] = at(*starts_s)
    rows["gpu_w"] = gpu_w
    rows["host_w"] = 100.0 if host_w is None else host_w
    rows["temperature_c"] = 33.85  # as at cold idle: no heat
    return rows
