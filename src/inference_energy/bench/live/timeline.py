"""Power of a node over all its time: rows of its servers' traces, and the decay of heat between their lives.

While a server lives, the power is that of its trace. Without one a GPU draws its cold idle and what its heat leaks.
With d the kelvin above the temperature at cold idle, the law of `truth.step.Thermal` gives

    d' = -d / tau,   tau = thermal_time_s / (1 - k_per_w * leakage_w_per_k)
    P = cold_idle_w + leakage_w_per_k * d0 * exp(-t / tau)

so every stretch has the form P = floor + heat * exp(-t / tau), and its energy is known in closed form.
"""

import numpy as np
from numpy.typing import NDArray

from inference_energy.bench.hardware import Device
from inference_energy.bench.truth.ledger import GPU_IDLE, Floats, Integers
from inference_energy.bench.truth.power_trace import TRACE_DTYPE

STRETCH_DTYPE = np.dtype([*TRACE_DTYPE.descr, ("heat_w", "<f8"), ("gpu_j", "<f8"), ("host_j", "<f8")])
"""A row of a trace whose `gpu_w` is the floor, the heat on top of it, and the energies up to its start."""

LiveTrace = NDArray[np.void]


class Timeline:
    """Stretches of power in ascending time; the first one extends backwards and the last one forwards without end.

    Args:
        device: the GPU.
        host_idle_w: power of the CPU packages between lives.
        origin_ns: when the node began; energies count from here.
    """

    def __init__(self, device: Device, host_idle_w: float, origin_ns: int) -> None:
        self._device = device
        self._host_idle_w = host_idle_w
        self._rest_c = device.ambient_c + device.k_per_w * device.cold_idle_w
        self._tau_s = device.thermal_time_s / (1.0 - device.k_per_w * device.leakage_w_per_k)
        self._rows = np.zeros(1024, dtype=STRETCH_DTYPE)
        self._count = 1
        self._rows[0] = (origin_ns, device.cold_idle_w, host_idle_w, self._rest_c, GPU_IDLE, 0, 0.0, 0.0, 0.0)
        self._view()

    @property
    def last_start_ns(self) -> int:
        """When the newest stretch began."""
        return int(self._starts_ns[-1])

    def extend(self, trace: LiveTrace) -> None:
        """Add rows of a trace; one without a GPU power begins a stretch without a server."""
        first = self._count
        self._reserve(first + len(trace))
        new = self._rows[first : first + len(trace)]
        for name in TRACE_DTYPE.names or ():
            new[name] = trace[name]
        # If two servers overlap, the later row holds; time never runs back.
        starts_ns = self._rows["start_ns"][first - 1 : first + len(trace)]
        np.maximum.accumulate(starts_ns, out=starts_ns)
        ended = np.isnan(new["gpu_w"])
        if ended.any():
            new["heat_w"] = np.where(ended, self._device.leakage_w_per_k * (new["temperature_c"] - self._rest_c), 0.0)
            new["gpu_w"][ended] = self._device.cold_idle_w
            new["host_w"][ended] = self._host_idle_w
            new["events"][ended] = GPU_IDLE
            new["busy"][ended] = 0
        lengths_s = np.diff(starts_ns) / 1e9
        before = self._rows[first - 1 : first + len(trace) - 1]
        gpu_j = before["gpu_w"] * lengths_s + before["heat_w"] * self._decayed_s(lengths_s)
        new["gpu_j"] = self._rows["gpu_j"][first - 1] + np.cumsum(gpu_j)
        new["host_j"] = self._rows["host_j"][first - 1] + np.cumsum(before["host_w"] * lengths_s)
        self._count = first + len(trace)
        self._view()

    def end(self, time_ns: int) -> None:
        """End the newest life, as its last row would have done."""
        last = np.zeros(1, dtype=TRACE_DTYPE)
        last["start_ns"] = time_ns
        last["gpu_w"] = np.nan
        last["temperature_c"] = self._stretches["temperature_c"][-1]
        self.extend(last)

    def gpu_power_w(self, times_ns: Integers) -> Floats:
        """Power of each GPU."""
        row_index = self._row_index(times_ns)
        power_w: Floats = self._gpu_w[row_index]
        heat_w = self._heat_w[row_index]
        if heat_w.any():
            power_w = power_w + heat_w * np.exp(-self._since_s(times_ns, row_index) / self._tau_s)
        return power_w

    def gpu_energy_j(self, times_ns: Integers) -> Floats:
        """Energy of each GPU since the node began."""
        row_index = self._row_index(times_ns)
        since_s = self._since_s(times_ns, row_index)
        energy_j: Floats = self._gpu_j[row_index] + self._gpu_w[row_index] * since_s
        heat_w = self._heat_w[row_index]
        if heat_w.any():
            energy_j = energy_j + heat_w * self._decayed_s(since_s)
        return energy_j

    def host_power_w(self, times_ns: Integers) -> Floats:
        """Power of the CPU packages."""
        return np.asarray(self._host_w[self._row_index(times_ns)], dtype=np.float64)

    def host_energy_j(self, times_ns: Integers) -> Floats:
        """Energy of the CPU packages since the node began."""
        row_index = self._row_index(times_ns)
        return np.asarray(
            self._host_j[row_index] + self._host_w[row_index] * self._since_s(times_ns, row_index), dtype=np.float64
        )

    def temperature_c(self, time_ns: int) -> float:
        """Temperature of the GPUs."""
        row_index = self._row_index(np.array([time_ns]))
        row = self._stretches[int(row_index[0])]
        if not row["heat_w"]:
            return float(row["temperature_c"])
        left = np.exp(-self._since_s(np.array([time_ns]), row_index)[0] / self._tau_s)
        return float(self._rest_c + (row["temperature_c"] - self._rest_c) * left)

    def events(self, time_ns: int) -> int:
        """Bits of NVML's clocks event reasons."""
        return int(self._stretches["events"][int(self._row_index(np.array([time_ns]))[0])])

    def busy_share(self, start_ns: int, end_ns: int) -> float:
        """Share of a time in which a step ran."""
        first, last = (int(row_index) for row_index in self._row_index(np.array([start_ns, end_ns])))
        edges_ns = np.concatenate(([start_ns], self._starts_ns[first + 1 : last + 1], [end_ns]))
        busy = self._stretches["busy"][first : last + 1] > 0
        return float(np.diff(edges_ns)[busy].sum() / (end_ns - start_ns))

    def _reserve(self, count: int) -> None:
        if count > len(self._rows):
            larger = np.zeros(max(count, 2 * len(self._rows)), dtype=STRETCH_DTYPE)
            larger[: self._count] = self._rows[: self._count]
            self._rows = larger

    def _view(self) -> None:
        self._stretches = self._rows[: self._count]
        self._starts_ns: Integers = self._stretches["start_ns"]
        self._gpu_w, self._heat_w = self._stretches["gpu_w"], self._stretches["heat_w"]
        self._host_w = self._stretches["host_w"]
        self._gpu_j, self._host_j = self._stretches["gpu_j"], self._stretches["host_j"]

    def _row_index(self, times_ns: Integers) -> NDArray[np.intp]:
        return np.maximum(self._starts_ns.searchsorted(times_ns, side="right") - 1, 0)

    def _since_s(self, times_ns: Integers, row_index: NDArray[np.intp]) -> Floats:
        return np.asarray((times_ns - self._starts_ns[row_index]) / 1e9, dtype=np.float64)

    def _decayed_s(self, since_s: Floats) -> Floats:
        """The integral of exp(-t / tau)."""
        return np.asarray(-self._tau_s * np.expm1(-since_s / self._tau_s), dtype=np.float64)
