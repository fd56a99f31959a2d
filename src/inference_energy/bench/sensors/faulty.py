"""Sensor faults, seen from one GPU: what a poll gets instead of what the sensor would show."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference_energy.bench.parts.faults import SensorFault
from inference_energy.bench.sensors.draws import Draws
from inference_energy.bench.truth.segments import Integers

Truths = NDArray[np.bool_]


class DeviceFaults:
    """The faults of one GPU's sensors.

    Args:
        faults: of the node; those of other GPUs are left out.
        device: this GPU.
        seed: of the node.
        origin_ns: the moment their times count from.
        dropped_share: part of all polls that give nothing, at any time.
    """

    def __init__(
        self, faults: Sequence[SensorFault], device: int, seed: int, origin_ns: int, dropped_share: float
    ) -> None:
        own = [fault for fault in faults if fault.device in (None, device)]
        self._origin_ns = origin_ns
        # The latest first: where two overlap, the sensor hangs at what the earlier one left it.
        self._stuck = sorted(self._spans("stuck", own), reverse=True)
        self._zero = self._spans("zero", own)
        self._resets_ns = sorted(start_ns for start_ns, _ in self._spans("counter_reset", own))
        self._steps = [(*self._span(fault), round(fault.step_s * 1e6)) for fault in own if fault.kind == "clock_step"]
        errors = [fault for fault in own if fault.kind == "error"]
        self._errors = [
            (*self._span(fault), fault.probability, Draws(seed, "gpu", device, "error", number))
            for number, fault in enumerate(errors)
        ]
        if dropped_share:
            always_ns = np.iinfo(np.int64)
            dropped = Draws(seed, "gpu", device, "dropped")
            self._errors.append((int(always_ns.min), int(always_ns.max), dropped_share, dropped))

    def seen_ns(self, times_ns: Integers) -> Integers:
        """The moment whose value each poll gets: its own, or when the sensor got stuck."""
        for start_ns, end_ns in self._stuck:
            times_ns = np.where((times_ns >= start_ns) & (times_ns < end_ns), start_ns, times_ns)
        return times_ns

    def fails(self, times_ns: Integers, call: int) -> Truths:
        """Whether each poll gives nothing.

        Args:
            times_ns: when each is made, shape (n,).
            call: which of the calls that may be made at the same moment.
        """
        failed = np.zeros(len(times_ns), dtype=np.bool_)
        for start_ns, end_ns, probability, draws in self._errors:
            within = (times_ns >= start_ns) & (times_ns < end_ns)
            if probability < 1.0:
                within &= draws.uniform(times_ns * 4 + call) < probability
            failed |= within
        return failed

    def reads_zero(self, times_ns: Integers) -> Truths:
        """Whether each poll shows 0."""
        zero = np.zeros(len(times_ns), dtype=np.bool_)
        for start_ns, end_ns in self._zero:
            zero |= (times_ns >= start_ns) & (times_ns < end_ns)
        return zero

    def last_reset_ns(self, times_ns: Integers) -> tuple[Integers, Truths]:
        """When the counter last began anew at each time, and whether it ever had; 0 where not."""
        if not self._resets_ns:
            return np.zeros_like(times_ns), np.zeros(len(times_ns), dtype=np.bool_)
        resets_ns = np.array(self._resets_ns, dtype=np.int64)
        count = np.searchsorted(resets_ns, times_ns, side="right")
        return np.where(count > 0, resets_ns[np.maximum(count - 1, 0)], 0), count > 0

    def clock_step_us(self, times_ns: Integers) -> Integers:
        """How far the driver's clock is off at each time."""
        off_us = np.zeros_like(times_ns)
        for start_ns, end_ns, step_us in self._steps:
            off_us += step_us * ((times_ns >= start_ns) & (times_ns < end_ns))
        return off_us

    def _span(self, fault: SensorFault) -> tuple[int, int]:
        return self._origin_ns + round(fault.start_s * 1e9), self._origin_ns + round(fault.end_s * 1e9)

    def _spans(self, kind: str, faults: Sequence[SensorFault]) -> list[tuple[int, int]]:
        return [self._span(fault) for fault in faults if fault.kind == kind]
