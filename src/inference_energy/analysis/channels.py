"""The channels of a power log: which there are, which are added up, and the energy of each over a window.

A channel is one (source, device, domain). Where it has a hardware energy counter, the counter's difference is the
energy and the integral of its power readings the cross-check; else the integral is the energy. A counter that moves
more seldom than every two seconds, such as a plug's in whole Wh, is the cross-check and the integral the energy. NVML's
average power is that of the last second (Yang, Adamek, Armour, SC24): its readings count for half a second earlier.
Where power only comes together with a counter, as from RAPL, it was derived from that counter and checks nothing.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.analysis.trapezoid import Times, Values, counter_energy, cumulative, integrate, shortfall_s
from inference_energy.contracts.figure import GRADES_WORST_LAST, Grade, worst
from inference_energy.contracts.power import SCHEMA, summed_keys
from inference_energy.contracts.tables import read_metadata, read_table
from inference_energy.errors import InputError

Reading = Literal["average", "instant"]

AVERAGE_DELAY_NS = 500_000_000
_AVERAGING = ("nvml", "nvidia-smi")
"""Sources whose average power is NVML's."""

MOST_COUNTER_PERIOD_S = 2.0
"""A counter that moves more seldom cannot be the energy of a window of minutes."""

_NO_TIMES: Times = np.zeros(0, dtype=np.int64)
_NO_VALUES: Values = np.zeros(0)
_DOMAIN_ORDER = ("node", "gpu", "cpu_package", "dram", "cpu")
_OWN_GRADE: tuple[Grade, ...] = ("modelled", "simulated", "metered")
"""Source grades that hold whatever way the energy is taken."""


@dataclass(frozen=True)
class Channel:
    """One channel's readings; times ascend. `reading` says which power was taken, None where there is none.

    `others` are power readings of the same channel that were not taken, for a second cross-check.
    """

    source: str
    device: str
    domain: str
    grade: Grade
    reading: Reading | None
    times_ns: Times
    power_w: Values
    counter_times_ns: Times
    counter_j: Values
    empty_times_ns: Times
    event_times_ns: Times
    event_bits: NDArray[np.int64]
    others: dict[Reading, tuple[Times, Values]] = field(default_factory=dict)

    @property
    def counted(self) -> bool:
        """Whether the energy is the counter's difference; else it is the integral of power."""
        return self.reading is None or self.counter_period_s <= MOST_COUNTER_PERIOD_S

    @cached_property
    def counter_moved_ns(self) -> Times:
        """Times of the counter's readings that differ from the one before."""
        return moved_ns(self.counter_times_ns, self.counter_j)

    @cached_property
    def counter_period_s(self) -> float:
        """The usual time between two changes of the counter; infinite where it does not change twice."""
        return _usual_spacing_s(self.counter_moved_ns)

    @property
    def blur_s(self) -> float:
        """How far what lies next to a stretch of time reaches into its readings: half of what NVML averages over."""
        return AVERAGE_DELAY_NS / 1e9 if self.source in _AVERAGING else 0.0

    @property
    def delay_s(self) -> float:
        """How much earlier than they were read the readings count that the energy comes from."""
        late = not self.counted and self.source in _AVERAGING and self.reading == "average"
        return AVERAGE_DELAY_NS / 1e9 if late else 0.0

    @property
    def name(self) -> str:
        """For sentences."""
        return f"{channel_label(self.domain, self.device)} ({self.source})"

    def main_times_ns(self) -> Times:
        """Times of the readings that the energy comes from."""
        return self.counter_times_ns if self.counted else self.times_ns

    def covers(self, start_ns: int, end_ns: int) -> bool:
        """Whether the readings reach from start to end."""
        return shortfall_s(self.main_times_ns(), start_ns, end_ns) == (0.0, 0.0)

    def energy_j(self, start_ns: int, end_ns: int) -> float:
        """Energy between two times in J.

        Raises:
            InputError: the log does not cover the window.
        """
        if self.counted:
            return counter_energy(self.counter_times_ns, self.counter_j, start_ns, end_ns)
        return integrate(self.times_ns, self.power_w, start_ns, end_ns)

    def energies_j(self, edges_ns: Times) -> Values:
        """Energy between each two neighbouring edges in J, shape (edges - 1,); the log covers them."""
        if self.counted:
            at_edges = np.interp(edges_ns - edges_ns[0], self.counter_times_ns - edges_ns[0], self._grown_j())
            return np.asarray(np.diff(at_edges), dtype=np.float64)
        return np.asarray(np.diff(cumulative(self.times_ns, self.power_w, edges_ns)), dtype=np.float64)

    def power_near_w(self, time_ns: int, side_s: float) -> float:
        """Mean power in W over so many seconds after a time (before it, where negative), as far as readings go."""
        times_ns = self.main_times_ns()
        other_ns = int(np.clip(time_ns + round(side_s * 1e9), times_ns[0], times_ns[-1]))
        start_ns, end_ns = min(time_ns, other_ns), max(time_ns, other_ns)
        if end_ns <= start_ns or not self.covers(start_ns, end_ns):
            return 0.0
        return self.energy_j(start_ns, end_ns) / ((end_ns - start_ns) / 1e9)

    def integral_j(self, reading: Reading, start_ns: int, end_ns: int) -> float | None:
        """What a power reading alone would give, in J; None where it was not logged or does not cover the window."""
        times_ns, power_w = (
            (self.times_ns, self.power_w)
            if reading == self.reading
            else self.others.get(reading, (_NO_TIMES, _NO_VALUES))
        )
        if not len(times_ns) or shortfall_s(times_ns, start_ns, end_ns) != (0.0, 0.0):
            return None
        return integrate(times_ns, power_w, start_ns, end_ns)

    def counter_energy_j(self, start_ns: int, end_ns: int) -> float | None:
        """What the hardware counter says, or None where there is none over this window."""
        if not len(self.counter_times_ns) or shortfall_s(self.counter_times_ns, start_ns, end_ns) != (0.0, 0.0):
            return None
        return counter_energy(self.counter_times_ns, self.counter_j, start_ns, end_ns)

    def _grown_j(self) -> Values:
        """The counter since its first reading: subtracting first keeps the digits."""
        return np.asarray(self.counter_j - self.counter_j[0], dtype=np.float64)


def read_channels(path: Path, reading: Reading) -> list[Channel]:
    """The channels of a power.parquet, with the grades that its metadata gives.

    Args:
        path: the file.
        reading: which power to take where both are logged; a channel that lacks it gives the other.

    Raises:
        InputError: the file cannot be read, or names a source whose grade it does not give.
    """
    return channels(read_table(path, SCHEMA), read_metadata(path).get("source"), reading)


def channels(frame: pd.DataFrame, sources: Any, reading: Reading) -> list[Channel]:
    """The channels of a power log in memory; `sources` is a list of {name, grade}."""
    grades = {str(s["name"]): str(s["grade"]) for s in sources or [] if isinstance(s, dict)}
    found = []
    for key, rows in frame.groupby(["source", "device", "domain"], sort=True, dropna=False):
        source, device, domain = (str(part) for part in key)
        if grades.get(source) not in GRADES_WORST_LAST:
            raise InputError(
                f"the power log has readings of {source!r}, but its schema metadata `source` gives no grade for it: it "
                'must be a list of {"name", "grade"}'
            )
        found.append(_channel((source, device, domain), grades[source], rows.sort_values("timestamp_ns"), reading))
    return found


def summed(found: list[Channel]) -> list[Channel]:
    """The channels whose energies add up without counting anything twice.

    Which these are says `contracts.power.summed_keys`.
    """
    keys = summed_keys(((c.source, c.device, c.domain), c.grade) for c in found)
    chosen = [c for c in found if (c.source, c.device, c.domain) in keys]
    return sorted(chosen, key=lambda c: (_DOMAIN_ORDER.index(c.domain), c.device))


def boundary(found: list[Channel]) -> str:
    """What the summed channels contain, such as `gpu + cpu_package + dram` or `cpu (modelled)`."""
    labels = []
    for channel in found:
        suffix = f" ({channel.grade})" if channel.grade in ("modelled", "simulated") else ""
        labels.append(channel.domain + suffix)
    return " + ".join(dict.fromkeys(labels)) or "nothing"


def boundary_note(found: list[Channel]) -> str | None:
    """What the summed channels leave out, in words; None where nothing was measured, or the whole machine."""
    inside = {channel.domain for channel in found}
    if not inside or "node" in inside:
        return None
    outside = [
        *(["any GPU"] if "gpu" not in inside else []),
        *(["the host CPU"] if not inside & {"cpu_package", "cpu"} else []),
        *(["DRAM"] if "dram" not in inside else []),
        "mainboard, storage, fans and power supply",
    ]
    return f"Figures contain {boundary(found)}; outside are {', '.join(outside)}."


def grade(found: list[Channel]) -> Grade:
    """The grade of the channels' sum: that of the worst; `sampled` where there is none."""
    return worst([channel.grade for channel in found]) if found else "sampled"


def channel_label(domain: str, device: str) -> str:
    """A channel in words: `gpu of GPU-4f1c...`, but `cpu` where the device has no other name."""
    return domain if device == domain else f"{domain} of {device}"


def _channel(key: tuple[str, str, str], source_grade: str, rows: pd.DataFrame, reading: Reading) -> Channel:
    times_ns = rows["timestamp_ns"].to_numpy(dtype=np.int64)
    counter = rows["energy_counter_j"].to_numpy(dtype=np.float64, na_value=np.nan)
    powers = {name: rows[f"power_{name}_w"].to_numpy(dtype=np.float64, na_value=np.nan) for name in get_args(Reading)}
    has_counter = ~np.isnan(counter)
    readings = {name: _reading(key[0], name, times_ns, power) for name, power in powers.items()}
    measured = {name: len(found[0]) > 0 for name, found in readings.items()}
    taken: Reading | None = next((name for name in (reading, *get_args(Reading)) if measured[name]), None)
    moves_s = _usual_spacing_s(moved_ns(times_ns[has_counter], counter[has_counter]))
    counts = moves_s <= MOST_COUNTER_PERIOD_S
    if taken is not None and counts and not (~np.isnan(powers[taken]) & ~has_counter).any():
        taken = None  # derived from the counter in the same row
    events = rows["clocks_event_reasons"]
    has_events = events.notna().to_numpy(dtype=bool)
    others = ["utilization", "memory_used_bytes", "sm_clock_mhz", "temperature_c", "clocks_event_reasons"]
    empty = rows[others].isna().all(axis=1).to_numpy(dtype=bool) & ~has_counter
    own = next((g for g in _OWN_GRADE if g == source_grade), None)
    way: Grade = "counter" if counts or taken is None else "sampled"
    return Channel(
        source=key[0],
        device=key[1],
        domain=key[2],
        grade=own or way,
        reading=taken,
        times_ns=readings[taken][0] if taken else _NO_TIMES,
        power_w=readings[taken][1] if taken else _NO_VALUES,
        counter_times_ns=times_ns[has_counter],
        counter_j=counter[has_counter],
        empty_times_ns=times_ns[empty & np.isnan(powers["average"]) & np.isnan(powers["instant"])],
        event_times_ns=times_ns[has_events],
        event_bits=events[has_events].to_numpy(dtype=np.int64),
        others={name: found for name, found in readings.items() if taken and name != taken and measured[name]},
    )


def _reading(source: str, name: str, times_ns: Times, power_w: Values) -> tuple[Times, Values]:
    """The readings that there are, at the times that they stand for."""
    known = ~np.isnan(power_w)
    delay_ns = AVERAGE_DELAY_NS if source in _AVERAGING and name == "average" else 0
    return times_ns[known] - delay_ns, power_w[known]


def moved_ns(times_ns: Times, counter_j: Values) -> Times:
    """Times of the readings of a counter that differ from the one before."""
    return np.asarray(times_ns[1:][np.diff(counter_j) != 0], dtype=np.int64)


def _usual_spacing_s(times_ns: Times) -> float:
    return float(np.median(np.diff(times_ns))) / 1e9 if len(times_ns) > 1 else float("inf")
