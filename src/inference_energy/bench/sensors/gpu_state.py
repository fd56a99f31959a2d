"""What NVML says of a GPU besides its power: use, memory, clock, temperature, reasons for slow clocks.

The trace knows when a step ran, the temperature and the reasons. Whether a model is in memory is seen from the power
without its heat: nearer to loaded idle than to cold idle, or above.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_energy.bench.parts.node import Node
from inference_energy.bench.truth.segments import POWER_CAP, THERMAL_SLOWDOWN, Floats, Integers
from inference_energy.bench.truth.trace import Steps

UTILIZATION_WINDOW_S = 1.0
"""NVML: the share of the past sample period, 1/6 s to 1 s by product, in which a kernel ran; whole percent."""

EMPTY_BYTES = 600 * 2**20
"""Memory the driver takes on a GPU that nobody uses; assumed."""

SLOWED_CLOCK_SHARE = 0.85
"""Part of the clock that is left under a power cap or heat; assumed."""


@dataclass(frozen=True)
class GpuState:
    """Readings at n times, shape (n,) each, named as in power.parquet."""

    utilization: Floats
    memory_used_bytes: Integers
    sm_clock_mhz: Integers
    temperature_c: Floats
    clocks_event_reasons: Integers


def gpu_state(node: Node, trace: NDArray[np.void], times_ns: Integers) -> GpuState:
    """The state of a GPU.

    Args:
        node: its settings.
        trace: of `TRACE_DTYPE`, shape (rows,), at least one row.
        times_ns: when it is asked for, shape (n,).
    """
    device = node.device
    starts_ns = trace["start_ns"].astype(np.int64)
    row = trace[np.maximum(np.searchsorted(starts_ns, times_ns, side="right") - 1, 0)]
    busy_s = Steps(starts_ns, trace["busy"].astype(np.float64)).energy_j
    used = (busy_s(times_ns) - busy_s(times_ns - round(UTILIZATION_WINDOW_S * 1e9))) / UTILIZATION_WINDOW_S
    rest_c = device.ambient_c + device.k_per_w * device.cold_idle_w
    base_w = row["gpu_w"] - device.leakage_w_per_k * (row["temperature_c"] - rest_c)
    loaded = (row["busy"] > 0) | (base_w > (device.cold_idle_w + device.loaded_idle_w) / 2)
    slowed = (row["events"] & (POWER_CAP | THERMAL_SLOWDOWN)) > 0
    clock_mhz = np.where(loaded, device.sm_clock_mhz, device.idle_clock_mhz)
    model_bytes = round(device.memory_bytes * node.engine.gpu_memory_utilization)
    return GpuState(
        utilization=np.rint(np.clip(used, 0.0, 1.0) * 100) / 100,
        memory_used_bytes=np.where(loaded, model_bytes, EMPTY_BYTES).astype(np.int64),
        sm_clock_mhz=np.rint(np.where(slowed, SLOWED_CLOCK_SHARE * clock_mhz, clock_mhz)).astype(np.int64),
        temperature_c=np.rint(row["temperature_c"]).astype(np.float64),
        clocks_event_reasons=row["events"].astype(np.int64),
    )
