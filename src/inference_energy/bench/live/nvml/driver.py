"""Virtual driver behind NVML's functions: the GPUs of a node as their sensors show them now.

Sensors show the truth as of `SHOWN_AFTER_S` ago. Identities of GPUs, which affect neither time nor energy, are those of
NVIDIA's data sheets.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from inference_energy.bench.config import select_faults
from inference_energy.bench.hardware import DEVICES
from inference_energy.bench.live.node import NodeFolder
from inference_energy.bench.live.power_trace_file import SHOWN_AFTER_S, TraceReader
from inference_energy.bench.sensors.nvml import (
    EMPTY_BYTES,
    SLOWED_CLOCK_SHARE,
    UTILIZATION_WINDOW_S,
    DeviceFaults,
    FieldReadings,
    memory_power_w,
)
from inference_energy.bench.sensors.power_log import gpu_name, gpu_sensor
from inference_energy.bench.truth.ledger import POWER_CAP, THERMAL_SLOWDOWN, Floats, Integers
from inference_energy.bench.truth.power_trace import PowerWithTenants

RING_SAMPLES, RING_PERIOD_S = 119, 0.02
TENANT_BYTES = 2 * 2**30
_RING_CALL = 2


@dataclass(frozen=True)
class Identity:
    """Compute capability, FP32 cores, memory clock, and the PCI number of the kind."""

    compute_capability: tuple[int, int]
    cores: int
    memory_clock_mhz: int
    pci_device_id: int


IDENTITIES = {
    "h100": Identity((9, 0), 16896, 2619, 0x233010DE),
    "a100": Identity((8, 0), 6912, 1593, 0x20B210DE),
}
"""By the device's name; a kind that is not here answers such questions with Not Supported."""


@dataclass(frozen=True)
class GpuProcess:
    """A process that computes on a GPU, with the memory that it holds."""

    pid: int
    used_bytes: int


class Driver:
    """A node's GPUs. All threads of a process share it.

    Args:
        node_folder: the node.
    """

    def __init__(self, node_folder: NodeFolder) -> None:
        self.node_folder = node_folder
        self.node = node_folder.node
        self.reader = TraceReader(node_folder.traces, node_folder.node, node_folder.origin_ns)
        self.wall_ns = time.time_ns() - time.monotonic_ns()
        self.gpus = [VirtualGpu(self, index) for index in range(self.node.tensor_parallel)]
        self._lock = threading.Lock()

    @contextmanager
    def refreshed(self) -> Iterator[int]:
        """The moment that sensors show now, with all that was written up to it, for one thread at a time."""
        with self._lock:
            self.reader.refresh()
            yield time.monotonic_ns() - round(SHOWN_AFTER_S * 1e9)

    def processes(self, index: int) -> list[GpuProcess]:
        """Who computes on a GPU now: the living server, and tenants in their time."""
        with self.refreshed():
            pid = self.reader.living_pid()
        processes = []
        if pid is not None:
            server_bytes = self.node.device.memory_bytes * self.node.engine.gpu_memory_utilization
            processes.append(GpuProcess(pid, round(server_bytes)))
        since_s = (time.monotonic_ns() - self.node_folder.origin_ns) / 1e9
        for tenant in self.node.faults.tenants:
            if tenant.device == index and tenant.start_s <= since_s < tenant.end_s:
                processes.append(GpuProcess(tenant.pid, TENANT_BYTES))
        return processes

    def close(self) -> None:
        """Close the trace files."""
        self.reader.close()


class VirtualGpu:
    """One GPU: what NVML calls a handle.

    Power and energy are NaN where the call fails.
    """

    def __init__(self, driver: Driver, index: int) -> None:
        node = driver.node
        self.index = index
        self.uuid = gpu_name(node, 0, index)
        self.device = node.device
        self.default_limit_w = DEVICES[node.gpu].power_limit_w
        self.has_average = node.device.averages_power
        self.has_instant = node.sensors.nvml.has_instant or not self.has_average
        self.has_counter = node.sensors.nvml.has_counter
        self.identity: Identity | None = IDENTITIES.get(node.gpu)
        self._driver = driver
        origin_ns = driver.node_folder.origin_ns
        tenants = [tenant for tenant in node.faults.tenants if tenant.device == index]
        self._truth = PowerWithTenants(driver.reader.gpu, tenants, origin_ns) if tenants else driver.reader.gpu
        self._sensor = gpu_sensor(node, self._truth, 0, index, origin_ns, driver.wall_ns)
        self._faults = DeviceFaults(select_faults("power", node.faults.sensors), index, node.seed, origin_ns, 0.0)

    def fields(self) -> FieldReadings:
        """What one call for field values gives, each of shape (1,)."""
        with self._driver.refreshed() as now_ns:
            return self._sensor.fields(_one(now_ns))

    def memory_power_w(self, average_w: Floats) -> Floats:
        """The memory's part of what the sensor shows."""
        return memory_power_w(average_w, self.device)

    def counter_j(self) -> float:
        """The energy counter, after as long as the call takes; it is read in the middle of that."""
        latency_s = float(self._sensor.counter_latency_s(_one(time.monotonic_ns()))[0])
        time.sleep(latency_s / 2)
        with self._driver.refreshed() as now_ns:
            counter_j = float(self._sensor.counter_j(_one(now_ns))[0])
        time.sleep(latency_s / 2)
        return counter_j

    def ring(self, after_us: int) -> list[tuple[int, float]]:
        """(us of the driver's clock, W) of the ring's samples later than a time: each the mean since the one before.

        W are NaN where the call fails.
        """
        period_ns = round(RING_PERIOD_S * 1e9)
        with self._driver.refreshed() as now_ns:
            edges_ns = (now_ns // period_ns - np.arange(RING_SAMPLES, -1, -1)) * period_ns
            seen_ns = self._faults.seen_ns(edges_ns[1:])
            energy_j = self._truth.energy_j(seen_ns) - self._truth.energy_j(seen_ns - period_ns)
        shown_w = np.maximum(energy_j / RING_PERIOD_S * self._sensor.gain + self._sensor.offset_w, 0.0)
        shown_w[self._faults.reads_zero(edges_ns[1:])] = 0.0
        if self._faults.fails(_one(now_ns), _RING_CALL)[0]:
            shown_w[:] = np.nan
        offset_ns = self._driver.wall_ns + round(self._driver.node.sensors.clock_offset_s * 1e9)
        times_us = (edges_ns[1:] + offset_ns) // 1000 + self._faults.clock_step_us(edges_ns[1:])
        later = times_us > after_us
        return list(zip(times_us[later].tolist(), shown_w[later].tolist(), strict=True))

    def processes(self) -> list[GpuProcess]:
        """Who computes on the GPU now."""
        return self._driver.processes(self.index)

    def used_bytes(self) -> int:
        """Memory in use."""
        return max(EMPTY_BYTES, sum(process.used_bytes for process in self.processes()))

    def utilization(self) -> float:
        """Share of the last second in which a step ran."""
        with self._driver.refreshed() as now_ns:
            return self._driver.reader.busy_share(now_ns - round(UTILIZATION_WINDOW_S * 1e9), now_ns)

    def temperature_c(self) -> float:
        """Temperature of the chip."""
        with self._driver.refreshed() as now_ns:
            return self._driver.reader.temperature_c(now_ns)

    def events(self) -> int:
        """Bits of the clocks event reasons."""
        with self._driver.refreshed() as now_ns:
            return self._driver.reader.events(now_ns)

    def sm_clock_mhz(self) -> int:
        """The clock of the multiprocessors: at its highest while a server lives, but for power cap and heat."""
        with self._driver.refreshed() as now_ns:
            if self._driver.reader.living_pid() is None:
                return self.device.idle_clock_mhz
            slowed = bool(self._driver.reader.events(now_ns) & (POWER_CAP | THERMAL_SLOWDOWN))
        return round(self.device.sm_clock_mhz * (SLOWED_CLOCK_SHARE if slowed else 1.0))


def _one(time_ns: int) -> Integers:
    return np.array([time_ns], dtype=np.int64)
