"""RAPL's view of a host whose true power is known: raw counters in uJ that wrap, and the powercap folder.

    counter = (start + floor(E(u) / quantum) * quantum) mod range

E is the zone's energy since the origin and u the last update. The packages share the host's power evenly, each has
memory beside it as a sub-zone `dram`, and `psys` holds packages, memory and the rest of the board.

As in the kernel, a sub-zone's folder lies within its zone's and is linked to beside it:

    intel-rapl:0/{name,energy_uj,max_energy_range_uj}
    intel-rapl:0/intel-rapl:0:0/{...}
    intel-rapl:0:0 -> intel-rapl:0/intel-rapl:0:0

Source: Linux kernel documentation, power/powercap/powercap.rst.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference_energy.bench.config import EngineSettings, RaplSensor
from inference_energy.bench.sensors.update_clock import RandomStream, UpdateClock
from inference_energy.bench.truth.ledger import Floats, Integers
from inference_energy.bench.truth.power_trace import TruePower
from inference_energy.contracts.io import atomic_write

BOARD_W = 25.0
"""Power in psys besides packages and memory; assumed."""


class ZonePower:
    """True power of a zone: a share of the host's plus a constant.

    Args:
        host: power of all packages together.
        share: part of it within the zone.
        constant_w: additional constant power.
        origin_ns: the moment that its energy counts from.
    """

    def __init__(self, host: TruePower, share: float, constant_w: float, origin_ns: int) -> None:
        self._host = host
        self._share = share
        self._constant_w = constant_w
        self._origin_ns = origin_ns
        self._before_j = float(host.energy_j(np.array([origin_ns], dtype=np.int64))[0])

    def energy_j(self, times_ns: Integers) -> Floats:
        """Energy since the origin."""
        constant_j = self._constant_w * ((times_ns - self._origin_ns) / 1e9)
        return self._share * (self._host.energy_j(times_ns) - self._before_j) + constant_j

    def power_w(self, times_ns: Integers) -> Floats:
        """Power at each time."""
        return self._share * self._host.power_w(times_ns) + self._constant_w


@dataclass(frozen=True)
class RaplZone:
    """One counter: `folder` and `name` as the kernel has them, `device` and `domain` as the power log has them."""

    folder: str
    name: str
    device: str
    domain: str
    power: TruePower
    ticks: UpdateClock
    start_uj: int


class RaplView:
    """RAPL counters of one host.

    Args:
        sensor: settings of the zones and counters.
        host: true power of all packages together.
        engine: engine of the node; gives the memory's power.
        origin_ns: when the node began.
        seed: seed of the node.
        host_index: number of the node among several.

    Attributes:
        zones: zones in the order of their folders; empty if the host has no RAPL.
        range_uj: value at which every counter wraps to 0.
    """

    def __init__(
        self,
        sensor: RaplSensor,
        host: TruePower,
        engine: EngineSettings,
        *,
        origin_ns: int,
        seed: int,
        host_index: int = 0,
    ) -> None:
        self.range_uj = round(sensor.max_energy_range_j * 1e6)
        self._quantum_uj = sensor.quantum_j * 1e6

        def zone(folder: str, name: str, device: str, domain: str, share: float, constant_w: float) -> RaplZone:
            names = (seed, "rapl", host_index, folder)
            return RaplZone(
                folder,
                name,
                device,
                domain,
                ZonePower(host, share, constant_w, origin_ns),
                UpdateClock(origin_ns, sensor.update_period_s, 0.0, *names),
                int(RandomStream(*names, "start").one_uniform() * self.range_uj),
            )

        packages = sensor.packages if sensor.present else 0
        zones = []
        for number in range(packages):
            folder, name = f"intel-rapl:{number}", f"package-{number}"
            zones.append(zone(folder, name, name, "cpu_package", 1.0 / packages, 0.0))
            if engine.dram_w > 0:
                zones.append(zone(f"{folder}:0", "dram", name, "dram", 0.0, engine.dram_w / packages))
        if sensor.present and sensor.with_psys:
            zones.append(zone(f"intel-rapl:{packages}", "psys", "psys", "psys", 1.0, engine.dram_w + BOARD_W))
        self.zones: Sequence[RaplZone] = tuple(zones)

    def raw_uj(self, zone: RaplZone, times_ns: Integers) -> Integers:
        """Return a zone's counter as `energy_uj` shows it at each time, from 0 to below `range_uj`; shape (n,)."""
        _, came_ns = zone.ticks.last(times_ns)
        energy_uj = zone.power.energy_j(came_ns) * 1e6
        counted_uj = np.rint(np.floor(energy_uj / self._quantum_uj) * self._quantum_uj).astype(np.int64)
        return (zone.start_uj + counted_uj) % self.range_uj


def unwrapped_j(raw_uj: Integers, range_uj: int) -> Floats:
    """Return the energy since the first reading of a counter that wraps at `range_uj`.

    The counter must be read more than once between wraps.

    Args:
        raw_uj: the readings in order, shape (n,).
        range_uj: range of the counter.
    """
    steps_uj = np.diff(raw_uj, prepend=raw_uj[:1])
    steps_uj = np.where(steps_uj < 0, steps_uj + range_uj, steps_uj)
    return np.asarray(np.cumsum(steps_uj) / 1e6, dtype=np.float64)


class PowercapTree:
    """Powercap folder of one host; `make` it, then `refresh` it often.

    Args:
        root: the folder, which stands for /sys/class/powercap.
        view: the counters.
    """

    def __init__(self, root: Path, view: RaplView) -> None:
        self._root = root
        self._view = view

    def make(self, time_ns: int) -> None:
        """Make the folder with the counters' values at a time; it is empty for a host without RAPL."""
        self._root.mkdir(parents=True, exist_ok=True)
        for zone in self._view.zones:
            folder = self._folder(zone)
            folder.mkdir(parents=True, exist_ok=True)
            _replace(folder / "name", zone.name)
            _replace(folder / "max_energy_range_uj", str(self._view.range_uj))
            beside = self._root / zone.folder
            if not beside.exists():
                beside.symlink_to(folder.relative_to(self._root), target_is_directory=True)
        self.refresh(time_ns)

    def refresh(self, time_ns: int) -> None:
        """Show every counter's value at a monotonic time; a reader gets the old value or the new one, whole."""
        time = np.array([time_ns], dtype=np.int64)
        for zone in self._view.zones:
            (value_uj,) = self._view.raw_uj(zone, time)
            _replace(self._folder(zone) / "energy_uj", str(int(value_uj)))

    def _folder(self, zone: RaplZone) -> Path:
        """Return the folder of a zone's files: `intel-rapl:0:0` lies in `intel-rapl:0`."""
        parent = zone.folder.rpartition(":")[0]
        return self._root / parent / zone.folder if ":" in parent else self._root / zone.folder


def _replace(path: Path, text: str) -> None:
    with atomic_write(path) as partial:
        partial.write_text(text + "\n")
