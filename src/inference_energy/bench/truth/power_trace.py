"""True power over time and the energy that is its integral, which sensors show and measurements are compared with."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inference_energy.bench.config import Tenant
from inference_energy.bench.truth.ledger import Floats, Integers, Segments

TRACE_DTYPE = np.dtype(
    [
        ("start_ns", "<i8"),
        ("gpu_w", "<f8"),
        ("host_w", "<f8"),
        ("temperature_c", "<f4"),
        ("events", "<u2"),
        ("busy", "<u2"),
    ]
)
"""A stretch of constant power, which lasts until the next one begins. `gpu_w` is the power of each GPU, `host_w` the
power of all CPU packages together; `busy` is 1 while a step runs."""


class TruePower(Protocol):
    """The true power of one device."""

    def energy_j(self, times_ns: Integers) -> Floats:
        """Return the energy from a fixed moment up to each time [J]; differences are exact."""

    def power_w(self, times_ns: Integers) -> Floats:
        """Return the power at each time [W]."""


class Steps:
    """Power that is constant between moments.

    Args:
        starts_ns: when each value begins, ascending, shape (n,).
        power_w: the values, shape (n,). Before the first start the first holds, after the last the last.
    """

    def __init__(self, starts_ns: Integers, power_w: Floats) -> None:
        self.starts_ns = starts_ns
        self.values_w = power_w
        lengths_s = np.diff(starts_ns) / 1e9
        self._energy_j = np.concatenate(([0.0], np.cumsum(lengths_s * power_w[:-1])))

    def energy_j(self, times_ns: Integers) -> Floats:
        """Energy since the first start."""
        row = self._row(times_ns)
        return np.asarray(
            self._energy_j[row] + (times_ns - self.starts_ns[row]) / 1e9 * self.values_w[row], dtype=np.float64
        )

    def power_w(self, times_ns: Integers) -> Floats:
        """Power at each time."""
        return np.asarray(self.values_w[self._row(times_ns)], dtype=np.float64)

    def _row(self, times_ns: Integers) -> NDArray[np.intp]:
        return np.maximum(np.searchsorted(self.starts_ns, times_ns, side="right") - 1, 0)


class PowerWithTenants:
    """Power of a device, including its other users.

    Args:
        base: the power without them.
        tenants: other users of this device.
        origin_ns: the moment that their times count from.
    """

    def __init__(self, base: TruePower, tenants: Sequence[Tenant], origin_ns: int) -> None:
        self._base = base
        self._tenants = [
            (origin_ns + round(t.start_s * 1e9), origin_ns + round(t.end_s * 1e9), t.power_w) for t in tenants
        ]

    def energy_j(self, times_ns: Integers) -> Floats:
        """Energy since some fixed moment."""
        total_j = self._base.energy_j(times_ns)
        for start_ns, end_ns, power_w in self._tenants:
            total_j = total_j + power_w * np.clip(times_ns - start_ns, 0, end_ns - start_ns) / 1e9
        return total_j

    def power_w(self, times_ns: Integers) -> Floats:
        """Power at each time."""
        total_w = self._base.power_w(times_ns)
        for start_ns, end_ns, power_w in self._tenants:
            total_w = total_w + power_w * ((times_ns >= start_ns) & (times_ns < end_ns))
        return total_w


def power_trace(segments: Segments) -> NDArray[np.void]:
    """Return a log of segments as an array of `TRACE_DTYPE`, shape (rows,)."""
    trace = np.zeros(len(segments), dtype=TRACE_DTYPE)
    for name in ("start_ns", "gpu_w", "host_w", "temperature_c", "events"):
        trace[name] = np.frombuffer(getattr(segments, name), dtype=getattr(segments, name).typecode)
    trace["busy"] = np.frombuffer(segments.sequences, dtype="q") > 0
    return trace


def device_power(trace: NDArray[np.void], tenants: Sequence[Tenant] = (), origin_ns: int = 0) -> TruePower:
    """Return the true power of one GPU in a trace, including its tenants."""
    base = Steps(trace["start_ns"].astype(np.int64), trace["gpu_w"].astype(np.float64))
    return PowerWithTenants(base, tenants, origin_ns) if tenants else base


def host_power(trace: NDArray[np.void]) -> TruePower:
    """Return the true power of the CPU packages in a trace."""
    return Steps(trace["start_ns"].astype(np.int64), trace["host_w"].astype(np.float64))
