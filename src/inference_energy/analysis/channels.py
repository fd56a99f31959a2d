"""The channels of a power log: which there are, which are added up, and the energy of each over a window.

A channel is one (source, device, domain). Its energy is the integral of its power readings, cross-checked with its
counter where it has one. Where power only comes together with a counter, as from RAPL, it was derived from that
counter, and the counter's own difference is the energy.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.analysis.trapezoid import Times, Values, counter_energy, integrate, shortfall_s
from inference_energy.contracts.figure import GRADES_WORST_LAST, Grade, worst
from inference_energy.contracts.power import SCHEMA, summed_domains
from inference_energy.contracts.tables import read_metadata, read_table
from inference_energy.errors import InputError

Reading = Literal["average", "instant"]

_DOMAIN_ORDER = ("node", "gpu", "cpu_package", "dram", "cpu")
_OWN_GRADE: tuple[Grade, ...] = ("modelled", "simulated", "metered")
"""Source grades that hold whatever way the energy is taken."""


@dataclass(frozen=True)
class Channel:
    """One channel's readings; times ascend. `reading` says which power was taken, None where there is none."""

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

    @property
    def counted(self) -> bool:
        """Whether the energy is the counter's difference; else it is the integral of power."""
        return self.reading is None

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

    def counter_energy_j(self, start_ns: int, end_ns: int) -> float | None:
        """What the hardware counter says, or None where there is none over this window."""
        if not len(self.counter_times_ns) or shortfall_s(self.counter_times_ns, start_ns, end_ns) != (0.0, 0.0):
            return None
        return counter_energy(self.counter_times_ns, self.counter_j, start_ns, end_ns)


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

    The domains are those of `contracts.power.summed_domains`. A device that two sources measure counts once, by the
    source with the better grade.
    """
    domains = summed_domains(channel.domain for channel in found)
    chosen: dict[tuple[str, str], Channel] = {}
    for channel in found:
        if channel.domain not in domains:
            continue
        place = (channel.device, channel.domain)
        held = chosen.get(place)
        if held is None or GRADES_WORST_LAST.index(channel.grade) < GRADES_WORST_LAST.index(held.grade):
            chosen[place] = channel
    return sorted(chosen.values(), key=lambda c: (_DOMAIN_ORDER.index(c.domain), c.device))


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
    measured = {name: ~np.isnan(power) for name, power in powers.items()}
    taken: Reading | None = None
    for name in (reading, *get_args(Reading)):
        if measured[name].any():
            taken = name
            break
    if taken is not None and has_counter.any() and not (measured[taken] & ~has_counter).any():
        taken = None  # derived from the counter in the same row
    events = rows["clocks_event_reasons"]
    has_events = events.notna().to_numpy(dtype=bool)
    kept = measured[taken] if taken else np.zeros(len(rows), dtype=bool)
    others = ["utilization", "memory_used_bytes", "sm_clock_mhz", "temperature_c", "clocks_event_reasons"]
    empty = rows[others].isna().all(axis=1).to_numpy(dtype=bool) & ~has_counter
    own = next((g for g in _OWN_GRADE if g == source_grade), None)
    way: Grade = "counter" if taken is None else "sampled"
    return Channel(
        source=key[0],
        device=key[1],
        domain=key[2],
        grade=own or way,
        reading=taken,
        times_ns=times_ns[kept],
        power_w=powers[taken][kept] if taken else np.zeros(0),
        counter_times_ns=times_ns[has_counter],
        counter_j=counter[has_counter],
        empty_times_ns=times_ns[empty & ~measured["average"] & ~measured["instant"]],
        event_times_ns=times_ns[has_events],
        event_bits=events[has_events].to_numpy(dtype=np.int64),
    )
