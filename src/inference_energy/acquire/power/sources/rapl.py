"""CPU and memory energy through RAPL, the processor's running average power limit counters.

Linux shows them as `/sys/class/powercap/intel-rapl:N[:M]`, on AMD as well as on Intel. Zones overlap: `psys` holds
`package`, which holds `core` and `uncore`; `dram` stands beside the package; `intel-rapl-mmio` repeats the package.
Logged are package, dram and psys, each as a domain of its own; psys is never added to the others. Source: Linux kernel
documentation, power/powercap/powercap.rst.

The dies of AMD's Threadripper and EPYC of Zen 1 and 2 all show the counter of their socket (codecarbon issues 1274 and
1379), other dies one of their own: zones whose values agree whenever they are read count once.

A counter that steps back wrapped at `max_energy_range_uj`, if the power that this implies is possible for the socket.
Else it went back for a moment, or began anew (powerstat issue 16, openhardwaremonitor issue 1591): then the log shows
the step, and the analysis withholds the energy.
"""

import itertools
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_energy.acquire.power.base import PowerSample, PowerSource, SensorChannel, SourceError, timed
from inference_energy.contracts.plausible_power import CONFIRMING_READINGS, SOCKET_FACTOR, stated_limit_w
from inference_energy.contracts.power import LEFT_OUT

POWERCAP = Path("/sys/class/powercap")
STALLED_AFTER_S = 2.0
UPDATE_S = 0.01
"""Counters are updated every 1 ms, some every 10 ms, and show at once what they gathered."""
HIGHEST_SOCKET_LIMIT_W = 2000.0
"""Firmware writes 4095 W and the like for no limit."""
LONGEST_FILE_BYTES = 256
LARGEST_UJ = 2**63

_ZONE = re.compile(r"intel-rapl(:\d+)+")
_PERMISSION = (
    "energy_uj is readable only by root since Linux 5.10, because power traces leak secrets (PLATYPUS, "
    "CVE-2020-8694); run as root, or allow it until the next boot: sudo chmod a+r "
    "/sys/class/powercap/intel-rapl:*/energy_uj"
)


class CounterAccumulator:
    """Adds up a counter that wraps to zero after `range_uj`.

    It must be read more than once per wrap: a range of 262 kJ lasts 17 minutes at 250 W.

    Args:
        range_uj: the value at which it starts again; 0 where that is not known, so that no step back is a wrap.
    """

    def __init__(self, range_uj: int) -> None:
        self._range_uj = range_uj
        self._last_uj: int | None = None
        self._total_uj = 0

    def add(self, counter_uj: int, highest_step_j: float = math.inf) -> float:
        """Add the next value of the counter in uJ; return the energy in J since the first one.

        A step back that would be more than `highest_step_j` as a wrap makes the energy fall.
        """
        if self._last_uj is not None:
            step_uj = counter_uj - self._last_uj
            wrapped_uj = step_uj + self._range_uj
            is_wrap = step_uj < 0 <= wrapped_uj <= highest_step_j * 1e6
            self._total_uj += wrapped_uj if is_wrap else step_uj
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
        """The value at which the counter starts again; 0 where it is not known."""
        try:
            return _number(self.path / "max_energy_range_uj")
        except SourceError:
            return 0

    def stated_limit_w(self) -> float | None:
        """The plausibility limit by the zone's own power limits; None where it states none (AMD)."""
        stated: list[float | None] = []
        for kind, index in itertools.product(("max_power_uw", "power_limit_uw"), range(3)):
            try:
                stated.append(_number(self.path / f"constraint_{index}_{kind}") / 1e6)
            except SourceError:
                continue
        return stated_limit_w(stated, SOCKET_FACTOR, HIGHEST_SOCKET_LIMIT_W)


@dataclass(frozen=True, slots=True)
class Zones:
    """The zones of this machine, sorted out.

    Attributes:
        alive: zones to log, each with a counter of its own that moves.
        dead: zones whose counter stands still.
        mirrors: zones that show the counter of another: (zone, the one that is logged).
    """

    alive: list[Zone]
    dead: list[Zone]
    mirrors: list[tuple[Zone, Zone]]


class RaplSource(PowerSource):
    """The RAPL counters of this machine.

    Args:
        root: the powercap folder.
        settle_s: time within which a counter must move, and over which counters are compared.
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
        zones = self._sorted_out()
        reason = f"{len(zones.alive)} energy counter(s)"
        if zones.dead:
            reason += f"; left out because they do not move: {', '.join(map(_named, zones.dead))}"
        if zones.mirrors:
            shown = ", ".join(f"{_named(zone)} that of {original.device}" for zone, original in zones.mirrors)
            reason += f"; counted once because they show the same counter: {shown}"
        return reason, [_named(zone) for zone in zones.alive]

    def channels(self) -> list[SensorChannel]:
        """A channel for each counter that moves."""
        zones = self._sorted_out()
        channels: list[SensorChannel] = []
        for zone in zones.alive:
            channel = _ZoneChannel(zone)
            if left_out := [dead.device for dead in zones.dead if dead.domain == zone.domain]:
                channel.metadata = {LEFT_OUT: left_out}
            channels.append(channel)
        return channels

    def _sorted_out(self) -> Zones:
        """Sort out the zones: a frozen counter is an error, not a zero, and a mirrored one is counted once."""
        zones = find_zones(self._root)
        first = _read(zones)
        moved = [False] * len(zones)
        rounds = 10
        agreed = dict.fromkeys(_comparable(zones), 0)
        for _ in range(rounds):
            self._sleep(self._settle_s / rounds)
            values = _read(zones)
            moved = [was or value != start for was, value, start in zip(moved, values, first, strict=True)]
            if agreed:
                again = _read(zones)
                for one, other in agreed:
                    # Read between two reads of the other, so a mirrored counter lies between their values.
                    agreed[one, other] += values[one] <= values[other] <= again[one]
            elif all(moved):
                break
        # Most rounds: a wrap, or an update between two reads, may spoil one.
        same = {other: one for (one, other), count in reversed(agreed.items()) if count > rounds / 2}
        mirrors = [(zones[other], zones[one]) for other, one in sorted(same.items()) if moved[other]]
        alive = [zone for index, zone in enumerate(zones) if moved[index] and index not in same]
        if not alive:
            all_zero = not any(first)
            raise SourceError(
                f"the RAPL counters {'read zero' if all_zero else 'do not move'}, as in a virtual machine whose host "
                "hides them: measure on the host"
            )
        return Zones(alive, [zone for zone, moves in zip(zones, moved, strict=True) if not moves], mirrors)


def find_zones(root: Path) -> list[Zone]:
    """Return the zones to log by number, none inside another of the same domain; no two have the same name.

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
    domains: dict[str, str] = {}
    for path in paths:
        name = _text(path / "name")
        parent = path.name.rpartition(":")[0]
        if name.startswith("package"):
            device, domain = name, "cpu_package"
        elif name == "dram":
            # The memory of a socket is named after its package.
            within = parent in {other.name for other in paths}
            device, domain = _text(root / parent / "name") if within else "dram", "dram"
        elif name.startswith("psys"):
            device, domain = name, "psys"
        else:
            continue  # core and uncore lie within the package
        domains[path.name] = domain
        if domain in [domains.get(outer) for outer in _around(path.name)]:
            continue
        if (device, domain) in zones:
            device += f" ({path.name})"
        zones[device, domain] = Zone(path, device, domain)
    if not zones:
        raise SourceError("this processor shows no RAPL package counter: load the driver (modprobe intel_rapl_msr)")
    return list(zones.values())


def _around(name: str) -> list[str]:
    """Return the names of the zones around one."""
    parts = name.split(":")
    return [":".join(parts[:length]) for length in range(2, len(parts))]


def _read(zones: Sequence[Zone]) -> list[int]:
    return [zone.counter_uj() for zone in zones]


def _comparable(zones: Sequence[Zone]) -> list[tuple[int, int]]:
    """Return the pairs of zones of one domain, by index, that may show one counter."""
    pairs = itertools.combinations(range(len(zones)), 2)
    return [(one, other) for one, other in pairs if zones[one].domain == zones[other].domain]


def _named(zone: Zone) -> str:
    return f"{zone.device} ({zone.domain})"


class _ZoneChannel(SensorChannel):
    """Energy since the first read, and the mean power since the counter last moved.

    After a step back, or up by more than the socket can draw, there is no power until the counter has recovered, or has
    gone on from there for `CONFIRMING_READINGS`.
    """

    def __init__(self, zone: Zone) -> None:
        super().__init__("rapl", zone.device, zone.domain, "counter")
        self.limit_w = zone.stated_limit_w()
        self._zone = zone
        self._accumulator = CounterAccumulator(zone.range_uj())
        self._moved: tuple[int, float] | None = None
        self._read_ns = 0
        self._odd = 0

    def read(self) -> PowerSample:
        counter_uj, timestamp_ns, latency_us = timed(self._zone.counter_uj)
        since_s = (timestamp_ns - self._read_ns) / 1e9
        moved_s = 0.0 if self._moved is None else (timestamp_ns - self._moved[0]) / 1e9
        energy_j = self._accumulator.add(counter_uj, self.highest_w * (max(since_s, moved_s) + UPDATE_S))
        self._read_ns = timestamp_ns
        moved_ns, moved_j = self._moved or (timestamp_ns, energy_j)
        power_w = None
        if energy_j == moved_j and moved_s > STALLED_AFTER_S:
            raise SourceError(f"the counter of {self.device} ({self.domain}) has not moved for {moved_s:.1f} s")
        if energy_j > moved_j and timestamp_ns > moved_ns:
            # Since the last move, not the last read: polls faster than the counter must not show 0 W and then a peak.
            power_w = (energy_j - moved_j) / (timestamp_ns - moved_ns) * 1e9
        is_odd = energy_j < moved_j or (power_w is not None and power_w > self.highest_w)
        self._odd = self._odd + 1 if is_odd else 0
        if is_odd:
            power_w = None
        if power_w is not None or self._moved is None or self._odd >= CONFIRMING_READINGS:
            self._moved, self._odd = (timestamp_ns, energy_j), 0
        return PowerSample(timestamp_ns, latency_us, power_average_w=power_w, energy_counter_j=energy_j)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LONGEST_FILE_BYTES).decode(errors="replace").strip()
    except PermissionError as error:
        raise SourceError(_PERMISSION) from error
    except OSError as error:
        raise SourceError(f"{path.parent.name}/{path.name} cannot be read: {error.strerror}") from error


def _number(path: Path) -> int:
    text = _text(path)
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > LARGEST_UJ:
        raise SourceError(f"{path.parent.name}/{path.name} holds {text[:40]!r}, not a number")
    return int(text)
