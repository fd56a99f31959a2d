"""CPU and memory energy through RAPL, the processor's running average power limit counters.

Linux shows them as `/sys/class/powercap/intel-rapl:N[:M]`, on AMD as well as on Intel. Zones overlap: `psys` holds
`package`, which holds `core` and `uncore`; `dram` stands beside the package; `intel-rapl-mmio` repeats the package.
Logged are package, dram and psys, each as a domain of its own; psys is never added to the others.
Source: Linux kernel documentation, power/powercap/powercap.rst.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inference_energy.acquire.power.base import PowerSample, PowerSource, SensorChannel, SourceError, timed

POWERCAP = Path("/sys/class/powercap")
STALLED_AFTER_S = 2.0

_ZONE = re.compile(r"intel-rapl(:\d+)+")
_PERMISSION = (
    "energy_uj is readable only by root since Linux 5.10, because power traces leak secrets (PLATYPUS, "
    "CVE-2020-8694); run as root, or allow it until the next boot: sudo chmod a+r "
    "/sys/class/powercap/intel-rapl:*/energy_uj"
)


class CounterAccumulator:
    """Adds up a counter that wraps to zero after `range_uj`.

    It must be read more than once per wrap: a range of 262 kJ lasts 17 minutes at 250 W.
    """

    def __init__(self, range_uj: int) -> None:
        self._range_uj = range_uj
        self._last_uj: int | None = None
        self._total_uj = 0

    def add(self, counter_uj: int) -> float:
        """Add the next value of the counter in uJ; return the energy in J since the first one."""
        if self._last_uj is not None:
            step_uj = counter_uj - self._last_uj
            self._total_uj += step_uj if step_uj >= 0 else step_uj + self._range_uj
        self._last_uj = counter_uj
        return self._total_uj / 1e6


@dataclass(frozen=True, slots=True)
class Zone:
    """One RAPL counter that is logged."""

    path: Path
    device: str
    domain: str

    def counter_uj(self) -> int:
        """The raw counter.

        Raises:
            SourceError: it cannot be read.
        """
        return _number(self.path / "energy_uj")

    def range_uj(self) -> int:
        """The value at which the counter starts again."""
        return _number(self.path / "max_energy_range_uj")


class RaplSource(PowerSource):
    """The RAPL counters of this machine.

    Args:
        root: the powercap folder.
        settle_s: time within which a counter must move.
        sleep: waits between two reads of the counters.
    """

    name = "rapl"
    grade = "counter"

    def __init__(
        self, root: Path = POWERCAP, settle_s: float = 0.25, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._root = root
        self._settle_s = settle_s
        self._sleep = sleep

    def find_devices(self) -> tuple[str, list[str]]:
        """Name the counters that move."""
        alive, dead = self._alive()
        devices = [f"{zone.device} ({zone.domain})" for zone in alive]
        left_out = [f"{zone.device} ({zone.domain})" for zone in dead]
        reason = f"{len(alive)} energy counter(s)"
        if left_out:
            reason += f"; left out because they do not move: {', '.join(left_out)}"
        return reason, devices

    def channels(self) -> list[SensorChannel]:
        """A channel for each counter that moves."""
        alive, _ = self._alive()
        return [_ZoneChannel(zone) for zone in alive]

    def _alive(self) -> tuple[list[Zone], list[Zone]]:
        """Return the zones whose counter moves, and the others: a frozen counter is an error, not a zero."""
        zones = find_zones(self._root)
        first = [zone.counter_uj() for zone in zones]
        moved = [False] * len(zones)
        reads = 10
        for _ in range(reads):
            self._sleep(self._settle_s / reads)
            moved = [was or zone.counter_uj() != start for was, zone, start in zip(moved, zones, first, strict=True)]
            if all(moved):
                break
        alive = [zone for zone, moves in zip(zones, moved, strict=True) if moves]
        if not alive:
            all_zero = not any(first)
            raise SourceError(
                f"the RAPL counters {'read zero' if all_zero else 'do not move'}, as in a virtual machine whose host "
                "hides them: measure on the host"
            )
        return alive, [zone for zone, moves in zip(zones, moved, strict=True) if not moves]


def find_zones(root: Path) -> list[Zone]:
    """Return the zones to log by number, each once and none inside another of the same domain.

    Raises:
        SourceError: there are none.
    """
    if not root.is_dir():
        raise SourceError(
            "this machine shows no powercap folder: the kernel lacks intel_rapl (modprobe intel_rapl_msr), or "
            "this is a virtual machine or a container without /sys/class/powercap"
        )
    paths = [path for path in root.iterdir() if _ZONE.fullmatch(path.name)]
    paths.sort(key=lambda path: [int(number) for number in path.name.split(":")[1:]])
    zones: dict[tuple[str, str], Zone] = {}
    for path in paths:
        name = _text(path / "name")
        parent = path.name.rpartition(":")[0]
        if name.startswith("package"):
            zone = Zone(path, name, "cpu_package")
        elif name == "dram":
            # The memory of a socket is named after its package.
            within = parent in {other.name for other in paths}
            zone = Zone(path, _text(root / parent / "name") if within else "dram", "dram")
        elif name.startswith("psys"):
            zone = Zone(path, name, "psys")
        else:
            continue  # core and uncore lie within the package
        zones.setdefault((zone.device, zone.domain), zone)
    if not zones:
        raise SourceError("this processor shows no RAPL package counter: load the driver (modprobe intel_rapl_msr)")
    return list(zones.values())


class _ZoneChannel(SensorChannel):
    """Energy since the first read, and the mean power since the counter last moved."""

    def __init__(self, zone: Zone) -> None:
        super().__init__("rapl", zone.device, zone.domain, "counter")
        self._zone = zone
        self._accumulator = CounterAccumulator(zone.range_uj())
        self._moved: tuple[int, float] | None = None

    def read(self) -> PowerSample:
        counter_uj, timestamp_ns, latency_us = timed(self._zone.counter_uj)
        energy_j = self._accumulator.add(counter_uj)
        moved_ns, moved_j = self._moved or (timestamp_ns, energy_j)
        power_w = None
        if energy_j > moved_j:
            # Since the last move, not the last read: polls faster than the counter must not show 0 W and then a peak.
            power_w = (energy_j - moved_j) / (timestamp_ns - moved_ns) * 1e9
        elif (still_s := (timestamp_ns - moved_ns) / 1e9) > STALLED_AFTER_S:
            raise SourceError(f"the counter of {self.device} ({self.domain}) has not moved for {still_s:.1f} s")
        if power_w is not None or self._moved is None:
            self._moved = (timestamp_ns, energy_j)
        return PowerSample(timestamp_ns, latency_us, power_average_w=power_w, energy_counter_j=energy_j)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except PermissionError as error:
        raise SourceError(_PERMISSION) from error
    except OSError as error:
        raise SourceError(f"{path.parent.name}/{path.name} cannot be read: {error.strerror}") from error


def _number(path: Path) -> int:
    text = _text(path)
    try:
        return int(text)
    except ValueError as error:
        raise SourceError(f"{path.parent.name}/{path.name} holds {text!r}, not a number") from error
