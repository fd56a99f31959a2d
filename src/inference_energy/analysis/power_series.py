"""The channels of a power log as series of readings, and the energy of each over a window.

A channel is one (source, device, domain). Where it has a hardware energy counter, its energy is the rise of the counter
and the integral of its power readings is the cross-check; else its energy is the integral. A counter that moves less
often than every two seconds, such as that of a plug in whole Wh, is the cross-check of the integral. Power that comes
only together with a counter, as from RAPL, was derived from that counter and checks nothing.

Average power is the mean over the time before it was read, 1 s with NVML from Ampere on (Yang, Adamek, Armour, SC24),
so its readings are placed half of that time earlier. The log says how long it averages; where that is not known,
readings stay where they were read.

A calibration corrects energies alone, E' = gain E + offset T. Readings, and the checks of one against the other, stay
as they were taken. Readings that cannot be (`contracts.plausible_power`) are set aside before anything else.
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
from inference_energy.contracts.documents.energy import CalibrationEntry
from inference_energy.contracts.grades import GRADES, Grade, weakest
from inference_energy.contracts.io import read_metadata, read_table
from inference_energy.contracts.plausible_power import CheckedCounter, checked_counter, implausible, limit_w
from inference_energy.contracts.power import (
    AVERAGING_WINDOW_S,
    DOMAIN_ORDER,
    GPU_MODULE,
    LEFT_OUT,
    SCHEMA,
    Key,
    channel_facts,
    domains_text,
    summed_keys,
)
from inference_energy.errors import InputError


@dataclass(frozen=True)
class Correction:
    """The correction of one channel by an entry of calibration.json.

    An entry is for the sum of its channels. All have its gain, and each has an equal part of its offset, so that they
    sum to the corrected energy of the entry; the corrected energy of a single channel means nothing.

    Attributes:
        entry: name of the entry.
        gain: its gain.
        offset_w: this channel's part of its offset.
        u_gain, u_offset_w, covariance_w: standard uncertainties and covariance of the entry, for the sum.
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
    def from_entry(cls, entry: CalibrationEntry) -> "Correction":
        """Return the correction of each of an entry's channels, from the entry in energy.json.

        Where the phases of the comparison scattered more than their own uncertainties say, the entry's were widened by
        that scatter, and n phases have n - 2 degrees of freedom; else the uncertainties are stated.
        """
        scattered = entry.chi2_per_dof > 1
        return cls(
            entry=entry.name,
            gain=entry.gain,
            offset_w=entry.offset_w / len(entry.channels),
            u_gain=entry.u_gain,
            u_offset_w=entry.u_offset_w,
            covariance_w=entry.covariance_w,
            dof=float(max(entry.phases - 2, 1)) if scattered else math.inf,
            basis=f"{entry.meter}, {entry.date[:10]}",
        )

    @property
    def is_of_node(self) -> bool:
        """Whether the meter measured the whole machine, whatever the channels measure."""
        return self.entry == NODE

    def raw_j(self, energy_j: float, duration_s: float) -> float:
        """Return the energy before the correction from the corrected one; duration 0 for an energy above idle."""
        return (energy_j - self.offset_w * duration_s) / self.gain


PowerKind = Literal["average", "instant"]
Reading = Literal["average", "instant", "counter"]

FORMER_WINDOWS_S = {"nvml": 1.0, "nvidia-smi": 1.0}
"""Averaging time of average power by source, for logs that do not state it."""

UNKNOWN_HALF_AVERAGING_TIME_S = 0.5
"""Half the averaging time that is assumed at the edges of an idle phase where it is not known."""

MAX_COUNTER_PERIOD_S = 2.0
"""A counter that moves less often is too coarse for the energy of a window of minutes."""

SUPERCHIP = (
    "The GPU is part of a superchip: gpu_module, which was logged and not added, is its power together with the Grace "
    "CPU and the memory of both."
)

_NO_TIMES: Times = np.zeros(0, dtype=np.int64)
_NO_VALUES: Values = np.zeros(0)
_FIXED_GRADES: tuple[Grade, ...] = ("modelled", "simulated", "metered")
"""Grades of sources that do not depend on how the energy is computed."""


@dataclass(frozen=True)
class PowerSeries:
    """The readings of one channel; times ascend.

    Attributes:
        source, device, domain: the channel, as in power.parquet.
        grade: grade of its energy.
        reading: the power that `power_w` holds; None where there is none.
        times_ns, power_w: its power readings.
        counter_times_ns, counter_j: readings of its hardware energy counter.
        empty_times_ns: times of rows that hold neither power, counter nor state.
        event_times_ns, event_bits: NVML's clocks event reasons.
        other_series: power readings that were not taken, for a second cross-check.
        correction: correction by a calibration; None without one.
        averaging_s: averaging time of average power; None where it is not known.
        counter_call_s: usual duration of a read of the counter, which is placed at the middle of the read.
        highest_w: the channel's plausibility limit.
        withheld: times and values of the readings that cannot be, by the power reading, and of the `counter`.
        counter_breaks_ns: pairs of neighboring readings between which the counter began anew, shape (breaks, 2).
        left_out: counters of the same kind that the source found and could not use.
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
    other_series: dict[PowerKind, tuple[Times, Values]] = field(default_factory=dict)
    correction: Correction | None = None
    averaging_s: float | None = 0.0
    counter_call_s: float = 0.0
    highest_w: float = math.inf
    withheld: dict[Reading, tuple[Times, Values]] = field(default_factory=dict)
    counter_breaks_ns: Times = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    left_out: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """The channel: source, device and domain."""
        return (self.source, self.device, self.domain)

    @property
    def gain(self) -> float:
        """Factor of the energy of the readings; 1 without a calibration."""
        return 1.0 if self.correction is None else self.correction.gain

    @property
    def offset_w(self) -> float:
        """Power that is added to that of the readings; 0 without a calibration."""
        return 0.0 if self.correction is None else self.correction.offset_w

    @property
    def uses_counter(self) -> bool:
        """Whether the energy is the rise of the counter; else it is the integral of power."""
        return self.reading is None or self.counter_period_s <= MAX_COUNTER_PERIOD_S

    @cached_property
    def counter_moved_ns(self) -> Times:
        """Times of the counter's readings that differ from the one before."""
        return _moved_ns(self.counter_times_ns, self.counter_j)

    @cached_property
    def counter_period_s(self) -> float:
        """The usual time between two changes of the counter; infinite where it does not change twice."""
        return _usual_spacing_s(self.counter_moved_ns)

    @cached_property
    def power_period_s(self) -> float:
        """The usual time between two changes of the power readings; infinite where they do not change twice."""
        return _usual_spacing_s(_moved_ns(self.times_ns, self.power_w))

    @property
    def half_averaging_time_s(self) -> float:
        """How far power before or after a stretch of time reaches into its readings."""
        return UNKNOWN_HALF_AVERAGING_TIME_S if self.averaging_s is None else self.averaging_s / 2

    @property
    def reading_delay_s(self) -> float:
        """How much earlier than they were read the readings are placed that the energy comes from."""
        is_average = not self.uses_counter and self.reading == "average"
        return (self.averaging_s or 0.0) / 2 if is_average else 0.0

    @property
    def name(self) -> str:
        """The channel in sentences, such as `gpu of GPU-4f1c (nvml)`."""
        return f"{channel_label(self.domain, self.device)} ({self.source})"

    @property
    def energy_reading(self) -> Reading:
        """The reading that the energy comes from."""
        return "counter" if self.uses_counter or self.reading is None else self.reading

    @property
    def energy_times_ns(self) -> Times:
        """Times of the readings that the energy comes from."""
        return self.counter_times_ns if self.uses_counter else self.times_ns

    def spans(self, start_ns: int, end_ns: int) -> bool:
        """Return whether the readings that the energy comes from reach from start to end."""
        return shortfall_s(self.energy_times_ns, start_ns, end_ns) == (0.0, 0.0)

    def energy_j(self, start_ns: int, end_ns: int) -> float:
        """Return the energy between two times [J], calibrated where there is a calibration.

        Raises:
            InputError: the log does not cover the window.
        """
        return self.gain * self.read_energy_j(start_ns, end_ns) + self.offset_w * ((end_ns - start_ns) / 1e9)

    def read_energy_j(self, start_ns: int, end_ns: int) -> float:
        """Return the energy between two times [J] without a calibration; raises as `energy_j` does."""
        if self.uses_counter:
            return counter_energy(self.counter_times_ns, self.counter_j, start_ns, end_ns)
        return integrate(self.times_ns, self.power_w, start_ns, end_ns)

    def energies_j(self, edges_ns: Times) -> Values:
        """Return `energy_j` between neighboring edges, shape (edges - 1,); the log must cover them."""
        if self.uses_counter:
            at_edges = np.interp(edges_ns - edges_ns[0], self.counter_times_ns - edges_ns[0], self._counter_rise_j())
        else:
            at_edges = cumulative(self.times_ns, self.power_w, edges_ns)
        corrected = self.gain * np.diff(at_edges) + self.offset_w * (np.diff(edges_ns) / 1e9)
        return np.asarray(corrected, dtype=np.float64)

    def power_near_w(self, time_ns: int, side_s: float) -> float:
        """Return the mean power [W] beside a time, without a calibration, as far as the readings reach.

        Args:
            time_ns: the time.
            side_s: length of the stretch after it; negative for one before it.
        """
        times_ns = self.energy_times_ns
        other_ns = int(np.clip(time_ns + round(side_s * 1e9), times_ns[0], times_ns[-1]))
        start_ns, end_ns = min(time_ns, other_ns), max(time_ns, other_ns)
        if end_ns <= start_ns or not self.spans(start_ns, end_ns):
            return 0.0
        return self.read_energy_j(start_ns, end_ns) / ((end_ns - start_ns) / 1e9)

    def power_of(self, reading: PowerKind) -> tuple[Times, Values]:
        """Return times and values of a power reading; empty where it was not logged."""
        if reading == self.reading:
            return self.times_ns, self.power_w
        return self.other_series.get(reading, (_NO_TIMES, _NO_VALUES))

    def integral_j(self, reading: PowerKind, start_ns: int, end_ns: int) -> float | None:
        """Return the integral of a power reading [J]; None where it was not logged or does not cover the window."""
        times_ns, power_w = self.power_of(reading)
        if not len(times_ns) or shortfall_s(times_ns, start_ns, end_ns) != (0.0, 0.0):
            return None
        return integrate(times_ns, power_w, start_ns, end_ns)

    def counter_energy_j(self, start_ns: int, end_ns: int) -> float | None:
        """Return the rise of the hardware counter [J]; None where it does not cover the window."""
        if not len(self.counter_times_ns) or shortfall_s(self.counter_times_ns, start_ns, end_ns) != (0.0, 0.0):
            return None
        return counter_energy(self.counter_times_ns, self.counter_j, start_ns, end_ns)

    def _counter_rise_j(self) -> Values:
        """Return the counter since its first reading: subtracting first keeps the digits."""
        return np.asarray(self.counter_j - self.counter_j[0], dtype=np.float64)


def read_power_series(path: Path, reading: PowerKind) -> list[PowerSeries]:
    """Read the channels of a power.parquet, with the grades in its metadata.

    Args:
        path: the file.
        reading: the power to take where both are logged; of a channel that lacks it the other is taken.

    Raises:
        InputError: the file cannot be read, or names a source whose grade it does not give.
    """
    return series_from_log(read_table(path, SCHEMA), read_metadata(path).get("source"), reading)


def series_from_log(frame: pd.DataFrame, sources: Any, reading: PowerKind) -> list[PowerSeries]:
    """Return the channels of a power log.

    Args:
        frame: rows of power.parquet.
        sources: metadata `source`: a list of {name, grade}, in newer logs with `channels`.
        reading: as in `read_power_series`.

    Raises:
        InputError: a source has no grade.
    """
    facts = channel_facts(sources)
    grades = {str(s["name"]): str(s["grade"]) for s in sources or [] if isinstance(s, dict)}
    series = []
    for key, rows in frame.groupby(["source", "device", "domain"], sort=True, dropna=False):
        source, device, domain = (str(part) for part in key)
        if grades.get(source) not in GRADES:
            raise InputError(
                f"the power log has readings of {source!r}, but its schema metadata `source` gives no grade for it: it "
                'must be a list of {"name", "grade"}'
            )
        ordered = rows.sort_values("timestamp_ns")
        series.append(_channel((source, device, domain), grades[source], ordered, reading, facts))
    return series


def summed(channels: Sequence[PowerSeries]) -> list[PowerSeries]:
    """Return the channels whose energies add up without counting anything twice: see `contracts.power.summed_keys`."""
    keys = summed_keys((channel.key, channel.grade) for channel in channels)
    chosen = [channel for channel in channels if channel.key in keys]
    return sorted(chosen, key=lambda channel: (DOMAIN_ORDER.index(channel.domain), channel.device))


def boundary(channels: Sequence[PowerSeries]) -> str:
    """Return the power domains of the summed channels, such as `gpu + cpu_package + dram` or `cpu (modelled)`.

    Channels that were calibrated against a meter of the whole machine stand for all of it: `node from gpu +
    cpu_package`.
    """
    text = domains_text((channel.domain, channel.grade) for channel in channels)
    return (
        f"node from {text}"
        if any(channel.correction and channel.correction.is_of_node for channel in channels)
        else text
    )


def boundary_note(channels: Sequence[PowerSeries], logged: Sequence[PowerSeries] = ()) -> str | None:
    """Return a sentence on the parts outside the summed channels; None where there is none, or nothing was measured.

    Args:
        channels: the summed channels.
        logged: all channels, for those that were read and not added.
    """
    inside = {channel.domain for channel in channels}
    inside |= {"node" for channel in channels if channel.correction and channel.correction.is_of_node}
    if not inside or "node" in inside:
        return None
    outside = [
        *(["any GPU"] if "gpu" not in inside else []),
        *(["the host CPU"] if not inside & {"cpu_package", "cpu"} else []),
        *(["DRAM"] if "dram" not in inside else []),
        "mainboard, storage, fans and power supply",
    ]
    note = f"Figures contain {boundary(channels)}; outside are {', '.join(outside)}."
    if any(channel.domain == GPU_MODULE for channel in logged):
        note += " " + SUPERCHIP
        if "cpu_package" not in inside:
            note += " No counter of the CPU was added, so its part is only in there."
    return note


def grade(channels: Sequence[PowerSeries]) -> Grade:
    """Return the weakest grade of the channels; `sampled` where there is none."""
    return weakest(channel.grade for channel in channels) if channels else "sampled"


def channel_label(domain: str, device: str) -> str:
    """Return a channel in words: `gpu of GPU-4f1c...`, but `cpu` where the device has no other name."""
    return domain if device == domain else f"{domain} of {device}"


def _averaging_s(key: Key, facts: dict[Key, dict[str, Any]]) -> float | None:
    """Return the averaging time of a channel's average power as the log states it; of older logs that of its source."""
    if key not in facts:
        return FORMER_WINDOWS_S.get(key[0], 0.0)
    window_s = facts[key].get(AVERAGING_WINDOW_S, 0.0)
    return None if window_s is None else float(window_s)


def _channel(
    key: Key, source_grade: str, rows: pd.DataFrame, reading: PowerKind, facts: dict[Key, dict[str, Any]]
) -> PowerSeries:
    averaging_s, highest_w = _averaging_s(key, facts), limit_w(key[2], facts.get(key, {}))
    times_ns = rows["timestamp_ns"].to_numpy(dtype=np.int64)
    counter = rows["energy_counter_j"].to_numpy(dtype=np.float64, na_value=np.nan)
    powers = {name: rows[f"power_{name}_w"].to_numpy(dtype=np.float64, na_value=np.nan) for name in get_args(PowerKind)}
    has_counter = ~np.isnan(counter)
    checked = checked_counter(times_ns[has_counter], counter[has_counter], key[2], highest_w)
    delay_ns = round((averaging_s or 0.0) / 2 * 1e9)
    delays_ns: dict[PowerKind, int] = {"average": delay_ns, "instant": 0}
    wrong = {name: implausible(power_w, highest_w) for name, power_w in powers.items()}
    readings = {
        name: _known_readings(times_ns - delays_ns[name], np.where(wrong[name], np.nan, power_w))
        for name, power_w in powers.items()
    }
    measured = {name: len(series_ns) > 0 for name, (series_ns, _) in readings.items()}
    taken: PowerKind | None = next((name for name in (reading, *get_args(PowerKind)) if measured[name]), None)
    counts = _usual_spacing_s(_moved_ns(checked.times_ns, checked.counter_j)) <= MAX_COUNTER_PERIOD_S
    is_derived = counts and not any((~np.isnan(powers[name]) & ~has_counter).any() for name in [taken] if name)
    if is_derived:
        taken = None  # derived from the counter in the same row
    events = rows["clocks_event_reasons"]
    has_events = events.notna().to_numpy(dtype=bool)
    state = ["utilization", "memory_used_bytes", "sm_clock_mhz", "temperature_c", "clocks_event_reasons"]
    empty = rows[state].isna().all(axis=1).to_numpy(dtype=bool) & ~has_counter
    fixed = next((grade for grade in _FIXED_GRADES if grade == source_grade), None)
    computed: Grade = "counter" if counts or taken is None else "sampled"
    return PowerSeries(
        source=key[0],
        device=key[1],
        domain=key[2],
        grade=fixed or computed,
        reading=taken,
        times_ns=readings[taken][0] if taken else _NO_TIMES,
        power_w=readings[taken][1] if taken else _NO_VALUES,
        counter_times_ns=checked.times_ns,
        counter_j=checked.counter_j,
        empty_times_ns=times_ns[empty & np.isnan(powers["average"]) & np.isnan(powers["instant"])],
        event_times_ns=times_ns[has_events],
        event_bits=events[has_events].to_numpy(dtype=np.int64),
        other_series={name: series for name, series in readings.items() if taken and name != taken and measured[name]},
        averaging_s=averaging_s,
        counter_call_s=_usual_s(rows["read_latency_us"].to_numpy(dtype=np.float64, na_value=np.nan)[has_counter] / 1e6),
        highest_w=highest_w,
        withheld=_withheld(
            checked, {} if is_derived else {name: (times_ns[bad], powers[name][bad]) for name, bad in wrong.items()}
        ),
        counter_breaks_ns=checked.breaks_ns,
        left_out=tuple(facts.get(key, {}).get(LEFT_OUT, ())),
    )


def _withheld(
    checked: CheckedCounter, powers: dict[PowerKind, tuple[Times, Values]]
) -> dict[Reading, tuple[Times, Values]]:
    """Return the times and values of the readings that cannot be, where there are any."""
    found: dict[Reading, tuple[Times, Values]] = {"counter": (checked.withheld_ns, checked.withheld_j)}
    for name, series in powers.items():
        found[name] = series
    return {name: series for name, series in found.items() if len(series[0])}


def _usual_s(calls_s: Values) -> float:
    """Return the median of the known durations; 0 where none is known."""
    known = calls_s[~np.isnan(calls_s)]
    return float(np.median(known)) if len(known) else 0.0


def _known_readings(times_ns: Times, power_w: Values) -> tuple[Times, Values]:
    """Return the readings that are not NaN."""
    known = ~np.isnan(power_w)
    return times_ns[known], power_w[known]


def _moved_ns(times_ns: Times, counter_j: Values) -> Times:
    """Return the times of the readings that differ from the one before."""
    return np.asarray(times_ns[1:][np.diff(counter_j) != 0], dtype=np.int64)


def _usual_spacing_s(times_ns: Times) -> float:
    return float(np.median(np.diff(times_ns))) / 1e9 if len(times_ns) > 1 else float("inf")
