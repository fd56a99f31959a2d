"""The log of all that happened on a node: one row a stretch of time in which nothing changed, a step or a rest."""

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

POWER_CAP = 0x4
THERMAL_SLOWDOWN = 0x20
GPU_IDLE = 0x1
"""NVML's bits of clocks event reasons: SwPowerCap, SwThermalSlowdown, GpuIdle."""

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_INTEGER_COLUMNS = (
    "start_ns",
    "end_ns",
    "decoding",
    "context",
    "prefill",
    "sequences",
    "samples",
    "prompts",
    "cached",
    "preemptions",
    "running",
    "waiting",
    "blocks",
    "events",
)
_FLOAT_COLUMNS = ("pairs", "gpu_w", "host_w", "temperature_c")


class Segments:
    """Columns that grow by one entry a stretch.

    Attributes:
        start_ns, end_ns: when; each begins where the one before ended.
        decoding, context, prefill, pairs, sequences, samples: what a step computed, as in `StepPhysics.cost`; all 0 at
            rest.
        prompts, cached: tokens of the prompts whose first token the step made, and those of them from the cache.
        preemptions: requests that lost their blocks when the step began.
        running, waiting, blocks: the engine's state during it.
        gpu_w: power of each GPU; host_w: of the CPU packages. temperature_c: of the GPUs at its end.
        events: bits of NVML's clocks event reasons.
    """

    def __init__(self) -> None:
        for name in _INTEGER_COLUMNS:
            setattr(self, name, array("q"))
        for name in _FLOAT_COLUMNS:
            setattr(self, name, array("d"))

    start_ns: "array[int]"
    end_ns: "array[int]"
    decoding: "array[int]"
    context: "array[int]"
    prefill: "array[int]"
    sequences: "array[int]"
    samples: "array[int]"
    prompts: "array[int]"
    cached: "array[int]"
    preemptions: "array[int]"
    running: "array[int]"
    waiting: "array[int]"
    blocks: "array[int]"
    events: "array[int]"
    pairs: "array[float]"
    gpu_w: "array[float]"
    host_w: "array[float]"
    temperature_c: "array[float]"

    def __len__(self) -> int:
        return len(self.end_ns)

    def rest(self, start_ns: int, end_ns: int, gpu_w: float, host_w: float, temperature_c: float) -> None:
        """Add a stretch without a step."""
        values: dict[str, Any] = {
            "start_ns": start_ns,
            "end_ns": end_ns,
            "events": GPU_IDLE,
            "gpu_w": gpu_w,
            "host_w": host_w,
            "temperature_c": temperature_c,
        }
        for name in (*_INTEGER_COLUMNS, *_FLOAT_COLUMNS):
            getattr(self, name).append(values.get(name, 0))

    def integers(self, name: str) -> Integers:
        """A column of whole numbers, shape (rows,)."""
        return np.array(getattr(self, name), dtype=np.int64)

    def floats(self, name: str) -> Floats:
        """A column, shape (rows,)."""
        return np.array(getattr(self, name), dtype=np.float64)
