"""What a calibration does to one channel: E' = gain E + offset T.

What a calibration does to one channel: E' = gain E + offset T.

The channels of a power log: which there are, which are added up, and the energy of each over a window.

A channel is one (source, device, domain). Where it has a hardware energy counter, the counter's difference is the
energy and the integral of its power readings the cross-check; else the integral is the energy. A counter that moves
more seldom than every two seconds, such as a plug's in whole Wh, is the cross-check and the integral the energy.
Average power is that of the time before it was read, 1 s with NVML from Ampere on (Yang, Adamek, Armour, SC24): its
readings count for half of that earlier. The log says how long it is; where nobody knows, they count for when they were
read.
Where power only comes together with a counter, as from RAPL, it was derived from that counter and checks nothing.
A calibration corrects energies alone: readings, and the checks of one against the other, stay as they were taken.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.analysis.integration import Times, Values, counter_energy, cumulative, integrate, shortfall_s
from inference_energy.contracts.calibration import NODE
from inference_energy.contracts.grades import GRADES, Grade, weakest
from inference_energy.contracts.io import read_metadata, read_table
from inference_energy.contracts.power import AVERAGING_WINDOW_S, GPU_MODULE, SCHEMA, Key, channel_facts, summed_keys
from inference_energy.errors import InputError


@dataclass(frozen=True)
class Correction:
    """One channel's part of an entry of calibration.json.

    An entry is for the sum of its channels. All have its gain, and each an equal part of its offset, so that they sum
    to what the entry gives; a part of them alone means nothing.

    Attributes:
        entry: its name.
        gain: of the entry.
        offset_w: this channel's part.
        u_gain, u_offset_w, covariance_w: the entry's standard uncertainties and covariance, for the sum.
        dof: degrees of freedom behind them.
        basis: the meter and the date, in words.
    """

    entry: str
    gain: float
    offset_w: float
    u_gain: float
    u_offset_w: float
    covariance_w: float
    dof: float
    basis: str

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Correction":
        """The correction of each of an entry's channels, from the entry in energy.json.

        Where the phases scattered more than their own uncertainties say, the entry's were widened by that scatter
        (`calibrate`), and n phases have n - 2 degrees of freedom; else the uncertainties are known beforehand.
        """
        scattered = record["chi2_per_dof"] > 1
        return cls(
            entry=record["name"],
            gain=record["gain"],
            offset_w=record["offset_w"] / len(record["channels"]),
            u_gain=record["u_gain"],
            u_offset_w=record["u_offset_w"],
            covariance_w=record["covariance_w"],
            dof=float(max(record["phases"] - 2, 1)) if scattered else math.inf,
            basis=f"{record['meter']}, {record['date'][:10]}",
        )

    @property
    def is_of_node(self) -> bool:
        """Whether the meter saw the whole machine, whatever the channels are of."""
        return self.entry == NODE

    def raw_j(self, energy_j: float, duration_s: float) -> float:
        """The energy before the correction, from that after it; time 0 for an energy above idle."""
        return (energy_j - self.offset_w * duration_s) / self.gain


PowerKind = Literal["average", "instant"]

FORMER_WINDOWS_S = {"nvml": 1.0, "nvidia-smi": 1.0}
"""What average power averages over, by source, in logs from before they said so themselves."""

UNKNOWN_BLUR_S = 0.5
"""How far an average of unknown length is taken to reach over the edge of an idle phase."""

MOST_COUNTER_PERIOD_S = 2.0
"""A counter that moves more seldom cannot be the energy of a window of minutes."""

SUPERCHIP = (
    "The GPU is part of a superchip: gpu_module, which was logged and not added, is its power together with the Grace "
    "CPU and the memory of both."
)

_NO_TIMES: Times = np.zeros(0, dtype=np.int64)
_NO_VALUES: Values = np.zeros(0)
_DOMAIN_ORDER = ("node", "gpu", "cpu_package", "dram", "cpu")
_OWN_GRADE: tuple[Grade, ...] = ("modelled", "simulated", "metered")
"""Source grades that hold whatever way the energy is taken."""


@dataclass(frozen=True)
class PowerSeries:
    """One channel's readings; times ascend. `reading` says which power was taken, None where there is none.

    `others` are power readings of the same channel that were not taken, for a second cross-check. `correction` is that
    of a calibration, None without one. `averaging_s` is what average power averages over, None where that is not known;
    `counter_call_s` is how long a read of the counter usually takes: it is placed at its middle.
    """

    source: str
    device: str
    domain: str
    grade: Grade
    reading: PowerKind | None
    times_ns: Times
    power_w: Values
    counter_times_ns: Times
    counter_j: Values
    empty_times_ns: Times
    event_times_ns: Times
    event_bits: NDArray[np.int64]
    others: dict[PowerKind, tuple[Times, Values]] = field(default_factory=dict)
    correction: Correction | None = None
    averaging_s: float | None = 0.0
    counter_call_s: float = 0.0

    @property
    def gain(self) -> float:
        """What an energy of the readings is multiplied with; 1 without a calibration."""
        return 1.0 if self.correction is None else self.correction.gain

    @property
    def offset_w(self) -> float:
        """The power that is added to that of the readings; 0 without a calibration."""
        return 0.0 if self.correction is None else self.correction.offset_w

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

    @cached_property
    def power_period_s(self) -> float:
        """The usual time between two changes of the power readings; infinite where they do not change twice."""
        return _usual_spacing_s(moved_ns(self.times_ns, self.power_w))

    @property
    def blur_s(self) -> float:
        """How far what lies next to a stretch of time reaches into its readings: half of what they average over."""
        return UNKNOWN_BLUR_S if self.averaging_s is None else self.averaging_s / 2

    @property
    def delay_s(self) -> float:
        """How much earlier than they were read the readings count that the energy comes from."""
        late = not self.counted and self.reading == "average"
        return (self.averaging_s or 0.0) / 2 if late else 0.0

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
        """Energy between two times in J, calibrated where there is a calibration.

        Raises:
            InputError: the log does not cover the window.
        """
        return self.gain * self.read_energy_j(start_ns, end_ns) + self.offset_w * ((end_ns - start_ns) / 1e9)

    def read_energy_j(self, start_ns: int, end_ns: int) -> float:
        """Energy between two times in J as the sensor gives it; raises as `energy_j` does."""
        if self.counted:
            return counter_energy(self.counter_times_ns, self.counter_j, start_ns, end_ns)
        return integrate(self.times_ns, self.power_w, start_ns, end_ns)

    def energies_j(self, edges_ns: Times) -> Values:
        """`energy_j` between each two neighbouring edges, shape (edges - 1,); the log covers them."""
        if self.counted:
            at_edges = np.interp(edges_ns - edges_ns[0], self.counter_times_ns - edges_ns[0], self._grown_j())
        else:
            at_edges = cumulative(self.times_ns, self.power_w, edges_ns)
        corrected = self.gain * np.diff(at_edges) + self.offset_w * (np.diff(edges_ns) / 1e9)
        return np.asarray(corrected, dtype=np.float64)

    def power_near_w(self, time_ns: int, side_s: float) -> float:
        """Mean power in W over so many seconds after a time (before it, where negative), as far as readings go.

        It is that of the readings, without a calibration.
        """
        times_ns = self.main_times_ns()
        other_ns = int(np.clip(time_ns + round(side_s * 1e9), times_ns[0], times_ns[-1]))
        start_ns, end_ns = min(time_ns, other_ns), max(time_ns, other_ns)
        if end_ns <= start_ns or not self.covers(start_ns, end_ns):
            return 0.0
        return self.read_energy_j(start_ns, end_ns) / ((end_ns - start_ns) / 1e9)

    def power_of(self, reading: PowerKind) -> tuple[Times, Values]:
        """Times and values of a power reading; empty where it was not logged."""
        if reading == self.reading:
            return self.times_ns, self.power_w
        return self.others.get(reading, (_NO_TIMES, _NO_VALUES))

    def integral_j(self, reading: PowerKind, start_ns: int, end_ns: int) -> float | None:
        """What a power reading alone would give, in J; None where it was not logged or does not cover the window."""
        times_ns, power_w = self.power_of(reading)
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


def read_channels(path: Path, reading: PowerKind) -> list[PowerSeries]:
    """The channels of a power.parquet, with the grades that its metadata gives.

    Args:
        path: the file.
        reading: which power to take where both are logged; a channel that lacks it gives the other.

    Raises:
        InputError: the file cannot be read, or names a source whose grade it does not give.
    """
    return channels(read_table(path, SCHEMA), read_metadata(path).get("source"), reading)


def channels(frame: pd.DataFrame, sources: Any, reading: PowerKind) -> list[PowerSeries]:
    """The channels of a power log in memory; `sources` is a list of {name, grade} with, in newer logs, channels."""
    facts = channel_facts(sources)
    grades = {str(s["name"]): str(s["grade"]) for s in sources or [] if isinstance(s, dict)}
    found = []
    for key, rows in frame.groupby(["source", "device", "domain"], sort=True, dropna=False):
        source, device, domain = (str(part) for part in key)
        if grades.get(source) not in GRADES:
            raise InputError(
                f"the power log has readings of {source!r}, but its schema metadata `source` gives no grade for it: it "
                'must be a list of {"name", "grade"}'
            )
        averaging_s = _averaging_s((source, device, domain), facts)
        ordered = rows.sort_values("timestamp_ns")
        found.append(_channel((source, device, domain), grades[source], ordered, reading, averaging_s))
    return found


def summed(found: list[PowerSeries]) -> list[PowerSeries]:
    """The channels whose energies add up without counting anything twice.

    Which these are says `contracts.power.summed_keys`.
    """
    keys = summed_keys(((c.source, c.device, c.domain), c.grade) for c in found)
    chosen = [c for c in found if (c.source, c.device, c.domain) in keys]
    return sorted(chosen, key=lambda c: (_DOMAIN_ORDER.index(c.domain), c.device))


def boundary(found: list[PowerSeries]) -> str:
    """What the summed channels contain, such as `gpu + cpu_package + dram` or `cpu (modelled)`.

    Calibrated as a node they stand for all of it: `node from gpu + cpu_package`.
    """
    labels = []
    for channel in found:
        suffix = f" ({channel.grade})" if channel.grade in ("modelled", "simulated") else ""
        labels.append(channel.domain + suffix)
    text = " + ".join(dict.fromkeys(labels)) or "nothing"
    return f"node from {text}" if any(c.correction and c.correction.is_of_node for c in found) else text


def boundary_note(found: list[PowerSeries], logged: Sequence[PowerSeries] = ()) -> str | None:
    """What the summed channels leave out, in words; None where nothing was measured, or the whole machine.

    Args:
        found: the summed channels.
        logged: all channels, for what was read and not added.
    """
    inside = {channel.domain for channel in found}
    inside |= {"node" for channel in found if channel.correction and channel.correction.is_of_node}
    if not inside or "node" in inside:
        return None
    outside = [
        *(["any GPU"] if "gpu" not in inside else []),
        *(["the host CPU"] if not inside & {"cpu_package", "cpu"} else []),
        *(["DRAM"] if "dram" not in inside else []),
        "mainboard, storage, fans and power supply",
    ]
    note = f"Figures contain {boundary(found)}; outside are {', '.join(outside)}."
    if any(channel.domain == GPU_MODULE for channel in logged):
        note += " " + SUPERCHIP
        if "cpu_package" not in inside:
            note += " No counter of the CPU was added, so its part is only in there."
    return note


def grade(found: list[PowerSeries]) -> Grade:
    """The grade of the channels' sum: that of the worst; `sampled` where there is none."""
    return weakest([channel.grade for channel in found]) if found else "sampled"


def channel_label(domain: str, device: str) -> str:
    """A channel in words: `gpu of GPU-4f1c...`, but `cpu` where the device has no other name."""
    return domain if device == domain else f"{domain} of {device}"


def _averaging_s(key: Key, facts: dict[Key, dict[str, Any]]) -> float | None:
    """What a channel's average power averages over, as the log says or, before logs did, as its source is known for."""
    if key not in facts:
        return FORMER_WINDOWS_S.get(key[0], 0.0)
    window_s = facts[key].get(AVERAGING_WINDOW_S, 0.0)
    return None if window_s is None else float(window_s)


def _channel(
    key: Key, source_grade: str, rows: pd.DataFrame, reading: PowerKind, averaging_s: float | None
) -> PowerSeries:
    times_ns = rows["timestamp_ns"].to_numpy(dtype=np.int64)
    counter = rows["energy_counter_j"].to_numpy(dtype=np.float64, na_value=np.nan)
    powers = {name: rows[f"power_{name}_w"].to_numpy(dtype=np.float64, na_value=np.nan) for name in get_args(PowerKind)}
    has_counter = ~np.isnan(counter)
    delay_ns = round((averaging_s or 0.0) / 2 * 1e9)
    delays_ns: dict[PowerKind, int] = {"average": delay_ns, "instant": 0}
    readings = {name: _reading(times_ns - delays_ns[name], power) for name, power in powers.items()}
    measured = {name: len(found[0]) > 0 for name, found in readings.items()}
    taken: PowerKind | None = next((name for name in (reading, *get_args(PowerKind)) if measured[name]), None)
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
    return PowerSeries(
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
        averaging_s=averaging_s,
        counter_call_s=_usual_s(rows["read_latency_us"].to_numpy(dtype=np.float64, na_value=np.nan)[has_counter] / 1e6),
    )


def _usual_s(calls_s: Values) -> float:
    """The median of those known; 0 where none is."""
    known = calls_s[~np.isnan(calls_s)]
    return float(np.median(known)) if len(known) else 0.0


def _reading(times_ns: Times, power_w: Values) -> tuple[Times, Values]:
    """The readings that there are."""
    known = ~np.isnan(power_w)
    return times_ns[known], power_w[known]


def moved_ns(times_ns: Times, counter_j: Values) -> Times:
    """Times of the readings of a counter that differ from the one before."""
    return np.asarray(times_ns[1:][np.diff(counter_j) != 0], dtype=np.int64)


def _usual_spacing_s(times_ns: Times) -> float:
    return float(np.median(np.diff(times_ns))) / 1e9 if len(times_ns) > 1 else float("inf")
