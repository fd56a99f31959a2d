"""CPU power from its use, where no counter can be read. Every figure from here is `modelled`.

    P = P_idle + (P_tdp - P_idle) * u,    u = CPU seconds used per second / logical CPUs

Source: Fan, Weber, Barroso, "Power provisioning for a warehouse-sized computer", ISCA 2007, the linear model. It says
nothing about clocks, vector units or memory traffic, and the thermal design power stands for the power at full use.
"""

from collections.abc import Callable
from typing import Any

import psutil

from inference_energy.acquire.power.base import PowerSample, PowerSource, SensorChannel, SourceError, timed
from inference_energy.acquire.power.sources.cputime import CpuTime


def linear_power_w(utilization: float, idle_w: float, tdp_w: float) -> float:
    """Power in W at a CPU utilisation from 0 to 1."""
    return idle_w + (tdp_w - idle_w) * utilization


class ModelledSource(PowerSource):
    """The CPU's power, modelled from CPU seconds.

    Args:
        cpu_time: whose CPU seconds count.
        tdp_w: the CPU's power at full use in W, all sockets together; None leaves the source unavailable.
        idle_w: its power at rest in W, likewise; with 0 only what is above rest counts.
        cpus: logical CPUs of the machine; None asks the system.
    """

    name = "modelled"
    grade = "modelled"

    def __init__(self, cpu_time: CpuTime, tdp_w: float | None, idle_w: float = 0.0, cpus: int | None = None) -> None:
        self._cpu_time = cpu_time
        self._tdp_w = tdp_w
        self._idle_w = idle_w
        self._cpus = cpus or psutil.cpu_count(logical=True) or 1

    def find_devices(self) -> tuple[str, list[str]]:
        """Available once the power at full use is given."""
        tdp_w, idle_w = self._powers_w()
        reason = f"modelled from CPU use ({self._cpu_time.what}), {idle_w:g} W idle to {tdp_w:g} W"
        return reason, ["cpu"]

    def channels(self) -> list[SensorChannel]:
        """One channel, for all sockets."""
        tdp_w, idle_w = self._powers_w()
        return [_ModelledChannel(self._cpu_time, self._cpus, lambda use: linear_power_w(use, idle_w, tdp_w))]

    def describe(self) -> dict[str, Any]:
        """Adds the model's parameters."""
        return {
            **super().describe(),
            "model": f"linear in CPU use ({self._cpu_time.what})",
            "tdp_w": self._tdp_w,
            "idle_w": self._idle_w,
            "logical_cpus": self._cpus,
        }

    def _powers_w(self) -> tuple[float, float]:
        if self._tdp_w is None:
            raise SourceError(
                "power.modelled.tdp_w is not set: write the CPU's thermal design power in W, from its data sheet "
                "(log-power: --tdp-w)"
            )
        if not 0 <= self._idle_w < self._tdp_w:
            raise SourceError(
                f"power.modelled.idle_w ({self._idle_w:g}) must be at least 0 and below power.modelled.tdp_w "
                f"({self._tdp_w:g})"
            )
        return self._tdp_w, self._idle_w


class _ModelledChannel(SensorChannel):
    """Mean power since the last read, and the energy since the first."""

    def __init__(self, cpu_time: CpuTime, cpus: int, power_w: Callable[[float], float]) -> None:
        super().__init__("modelled", "cpu", "cpu", "modelled")
        self._cpu_time = cpu_time
        self._cpus = cpus
        self._power_w = power_w
        self._last_ns: int | None = None
        self._charged_s = 0.0
        self._energy_j = 0.0

    def read(self) -> PowerSample:
        used_s, timestamp_ns, latency_us = timed(self._cpu_time.seconds)
        if self._last_ns is None:
            self._charged_s = used_s
            self._last_ns = timestamp_ns
            return PowerSample(timestamp_ns, latency_us, energy_counter_j=0.0)
        capacity_s = (timestamp_ns - self._last_ns) / 1e9 * self._cpus
        # More than full use comes from a process found late or from clock ticks: it is charged to the reads after.
        charge_s = min(capacity_s, used_s - self._charged_s)
        self._charged_s += charge_s
        use = charge_s / capacity_s if capacity_s > 0 else 0.0
        power_w = self._power_w(use)
        self._energy_j += power_w * (timestamp_ns - self._last_ns) / 1e9
        self._last_ns = timestamp_ns
        return PowerSample(
            timestamp_ns, latency_us, power_average_w=power_w, energy_counter_j=self._energy_j, utilization=use
        )
