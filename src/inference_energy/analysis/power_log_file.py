"""A power log as a file, of this toolkit or of another tool: its channels, which add up, and what they include.

A CSV of another tool has a row for each reading, with the time and the power. Power of several devices stands in
several columns (`gpu0_power_w`, `gpu1_power_w`), or in rows that a column tells apart (`index`, `uuid`, `host` and
`gpu`). Each device is a channel of its own, so its readings are integrated between its own times, and the energies are
added. Rows that look like several devices with nothing to tell them apart are refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from inference_energy.analysis.csv_log import (
    Clock,
    CsvLog,
    Flags,
    LogTimes,
    read_csv_log,
    shown,
    shown_name,
    shown_names,
)
from inference_energy.analysis.power_columns import (
    PowerColumn,
    device_columns,
    is_quantity,
    power_columns,
    time_column,
    words,
)
from inference_energy.analysis.power_series import PowerKind, PowerSeries, boundary, series_from_log, summed
from inference_energy.contracts import power as power_contract
from inference_energy.contracts.grades import POWER_GRADES, Grade, weakest
from inference_energy.contracts.io import read_metadata, read_table
from inference_energy.contracts.power import AVERAGING_WINDOW_S, BOUNDARIES, SOURCE_DOMAINS, UNKNOWN
from inference_energy.errors import InputError

MAX_DEVICES = 1024
MAX_GPU_W = 10_000.0
MAX_POWER_W = 200_000.0
"""More than one GPU, and more than one rack, can draw: such a column holds mW, or no power."""

MIN_REGULAR_SHARE = 0.7
"""Share of the spacings between a device's rows that are within half of their median. A logger asks one device after
the other; rows that are told apart by something else, such as a utilization, come at random."""

MIN_DEVICE_ROWS = 3
MAX_CLUSTERED_SHARE = 0.4
"""Share of spacings below a quarter of the mean, above which rows come in groups. Of random times 22 % are."""

WITHOUT_SENSOR_ERROR = frozenset({"node", "wall", UNKNOWN})
"""Boundaries of which the stated errors of a card's sensor say nothing."""


_KNOWN_DOMAINS = {domain: (domain,) for domain in power_contract.DOMAINS}


@dataclass(frozen=True)
class PowerLog:
    """The power of a log.

    Attributes:
        channels: the channels that add up; times in Unix ns, or in ns of the log's own clock.
        boundary: the parts whose power they are; `unknown` where nothing says it.
        clock: the clock of their times.
        sensor_error_known: whether the errors that `analysis.uncertainty` states are those of these sensors.
        assumptions: sentences on what was taken for granted.
    """

    channels: list[PowerSeries]
    boundary: str
    clock: Clock = "unix"
    sensor_error_known: bool = True
    assumptions: tuple[str, ...] = ()


def read_power_log(
    path: Path, reading: PowerKind, *, stated_boundary: str | None = None, zone: tzinfo | None = None
) -> PowerLog:
    """Read the channels of a power log that add up, and their boundary.

    Args:
        path: a power.parquet, or a CSV with a time and a power in each row.
        reading: the power reading that is integrated where the log has both.
        stated_boundary: the boundary as the user states it; None takes it from the log.
        zone: zone of times that state none.

    Raises:
        InputError: the file or a column is missing or cannot be used, or the devices cannot be told apart.
    """
    stated = None if stated_boundary is None else boundary_parts(stated_boundary)
    if is_parquet(path):
        frame, metadata = read_table(path, power_contract.SCHEMA), read_metadata(path)
        return _own(path, frame, metadata.get("source"), reading, anchor_offset_ns(path), stated)
    return _foreign(read_csv_log(path), reading, stated, zone)


def boundary_parts(text: str) -> tuple[str, ...]:
    """Return the parts of a boundary, such as `gpu + cpu_package`, in the order of the glossary.

    Raises:
        InputError: a part is none of `BOUNDARIES`.
    """
    parts = [part.strip().lower() for part in text.split("+")]
    for part in parts:
        if part not in BOUNDARIES:
            raise InputError(f"--boundary: {shown(part)} is none of {', '.join(BOUNDARIES)}; join several by +")
    if len(parts) > 1 and set(parts) & WITHOUT_SENSOR_ERROR:
        raise InputError(f"--boundary: {shown(text)}: node, wall and unknown include everything; write one of them")
    return tuple(part for part in BOUNDARIES if part in parts)


def is_parquet(path: Path) -> bool:
    """Return whether the file is Parquet, by its name; else it is CSV.

    Raises:
        InputError: it is neither.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"{path}: the name must end in .csv or .parquet")
    return path.suffix == ".parquet"


def anchor_offset_ns(path: Path) -> int:
    """Return the offset from the monotonic times of a Parquet file to Unix times.

    Raises:
        InputError: the metadata of the file has no clock anchor.
    """
    anchor = read_metadata(path).get("clock_anchor")
    unix_ns, monotonic_ns = (
        (anchor.get("unix_ns"), anchor.get("monotonic_ns")) if isinstance(anchor, dict) else (None, None)
    )
    if not (
        isinstance(unix_ns, int) and isinstance(monotonic_ns, int) and max(abs(unix_ns), abs(monotonic_ns)) < 2**62
    ):
        raise InputError(
            f"{path}: its metadata has no clock_anchor, so its times cannot be placed; was it written by us?"
        )
    return unix_ns - monotonic_ns


def _own(
    path: Path, frame: pd.DataFrame, sources: Any, reading: PowerKind, offset_ns: int, stated: tuple[str, ...] | None
) -> PowerLog:
    """Return the log of this toolkit's sampler, whose sources say everything."""
    if frame["timestamp_ns"].isna().any():
        raise InputError(f"{path}: has readings without a time")
    channels = summed(series_from_log(frame, sources, reading))
    if not channels:
        raise InputError(f"{path}: holds no power that can be added up")
    says = boundary(channels)
    if stated is not None and set(stated) != {channel.domain for channel in channels}:
        raise InputError(f"--boundary: {path} says itself that it is of {says}; leave the option out")
    return PowerLog([_shifted(channel, offset_ns) for channel in channels], says)


def _shifted(channel: PowerSeries, offset_ns: int) -> PowerSeries:
    return replace(
        channel,
        times_ns=channel.times_ns + offset_ns,
        other_series={
            name: (times_ns + offset_ns, power_w) for name, (times_ns, power_w) in channel.other_series.items()
        },
        counter_times_ns=channel.counter_times_ns + offset_ns,
        empty_times_ns=channel.empty_times_ns + offset_ns,
        event_times_ns=channel.event_times_ns + offset_ns,
    )


def _foreign(log: CsvLog, reading: PowerKind, stated: tuple[str, ...] | None, zone: tzinfo | None) -> PowerLog:
    column = time_column(log, "time")
    powers, assumptions = power_columns(log, stated)
    times = log.times(column, zone)
    if not any((times.known & ~np.isnan(power.power_w)).any() for power in powers):
        raise InputError(f"{log.path}: no row has both {shown_name(column)} and {shown_name(powers[0].name)}")
    times = _of_summed_domains(log, times)
    devices = _find_devices(log, times, {column, *(power.name for power in powers)})
    _refuse_unknown_devices(log, times, devices, {column, *(power.name for power in powers), *devices.columns})
    says = _says(log, powers)
    if stated is not None and says is not None and set(stated) != set(says):
        raise InputError(f"--boundary: {log.path} says itself that it is of {' + '.join(says)}; leave the option out")
    parts = stated or says or (UNKNOWN,)
    labels = list(dict.fromkeys(power.label for power in powers))
    grade, source = _grade(log), _source(log)
    pieces, facts = [], []
    for number, device in enumerate(devices.names):
        rows = np.flatnonzero(times.known & (devices.number == number))
        for label in labels:
            readings = {power.reading: power for power in powers if power.label == label}
            kept = _in_order(log, times, rows, readings, devices, is_only=len(labels) == 1)
            if not len(kept):
                continue
            domain = _domain(readings, parts, len(labels))
            name = " ".join(filter(None, (device, label))) or ("all" if domain != "sensor" else domain)
            limit_w = MAX_GPU_W if domain == "gpu" and (devices.columns or len(labels) > 1) else MAX_POWER_W
            _check_size(log, kept, readings, limit_w)
            values = {f"power_{kind}_w": power.power_w[kept] for kind, power in readings.items()}
            labelled = {"timestamp_ns": times.ns[kept], "source": source, "device": name, "domain": domain}
            pieces.append(pd.DataFrame({**labelled, **values}))
            facts.append({"device": name, "domain": domain, AVERAGING_WINDOW_S: 0.0})
    frame = pd.concat(pieces, ignore_index=True).reindex(columns=power_contract.SCHEMA.names)
    series = series_from_log(frame, [{"name": source, "grade": grade, "channels": facts}], reading)
    channels = [replace(channel, grade=grade) for channel in series]
    if len(channels) > 1:
        by = f"told apart by {shown_names(devices.columns)}" if devices.columns else "in a column each"
        assumptions = [*assumptions, f"the power of {len(channels)} devices, {by}, adds up"]
    assumptions = [*assumptions, "each reading is the power at its time; over how long it averages is not stated"]
    suffix = f" ({grade})" if grade in ("modelled", "simulated") else ""
    return PowerLog(
        channels=channels,
        boundary=" + ".join(part + suffix for part in parts),
        clock=times.clock,
        sensor_error_known=not set(parts) & WITHOUT_SENSOR_ERROR,
        assumptions=tuple(assumptions),
    )


@dataclass(frozen=True)
class _Devices:
    """The devices of a log's rows.

    Attributes:
        columns: the columns that tell them apart; none where there is one device.
        names: each device's name, such as `host a gpu 3`; empty without such columns.
        number: the place in `names` of each row's device; shape (rows,).
    """

    columns: list[str]
    names: list[str]
    number: NDArray[np.int64]


def _of_summed_domains(log: CsvLog, times: LogTimes) -> LogTimes:
    """Return the times without rows of domains, or of sources, that contain others, by the columns of these names.

    Raises:
        InputError: it is not known whether they do.
    """
    for name, known in (("domain", _KNOWN_DOMAINS), ("source", SOURCE_DOMAINS)):
        values = list(filter(None, pc.unique(log.cells(name)).to_pylist())) if name in log.columns else []
        if len(values) < 2:
            continue
        if not set(values) <= set(known):
            raise InputError(
                f"{log.path}: column {name} has {shown_names(values)}, which may contain each other; keep one"
            )
        parts = [part for value in values for part in known[value]]
        if name == "source" and "domain" not in log.columns and len(set(parts)) < len(parts):
            raise InputError(f"{log.path}: column source has {shown_names(values)}, which measure the same; keep one")
        if name == "domain":
            kept = pa.array(sorted(power_contract.summed_domains(values)), pa.string())
            times = replace(times, known=times.known & np.asarray(pc.is_in(log.cells(name), kept)))
    return times


def _find_devices(log: CsvLog, times: LogTimes, others: set[str]) -> _Devices:
    """Return the devices by all columns that are called as devices are, and differ between rows.

    Raises:
        InputError: rows with one value are too few, or too irregular, to be those of a device.
    """
    columns = []
    for name in device_columns(log, others):
        values = pc.unique(log.cells(name))
        is_row_number = len(values) == len(log) > 2
        if len(values) > 1 and not is_row_number and not _has_fractions(log, name):
            columns.append(name)
    if not columns:
        return _Devices([], [""], np.zeros(len(log), dtype=np.int64))
    cells = [log.cells(name).to_pylist() for name in columns]
    keys = list(zip(*cells, strict=True))
    found = list(dict.fromkeys(keys))
    told_by = f"column(s) {shown_names(columns)}"
    if len(found) > MAX_DEVICES:
        raise InputError(f"{log.path}: {told_by} have {len(found)} values; devices are at most {MAX_DEVICES}")
    for name, values in zip(columns, cells, strict=True):
        if "" in values:
            raise log.error(values.index(""), name, "does not say the device")
    place = {key: number for number, key in enumerate(found)}
    number = np.array([place[key] for key in keys], dtype=np.int64)
    for key, index in place.items():
        if not _is_regular(times, number == index):
            raise InputError(
                f"{log.path}: {told_by}: the rows of {', '.join(map(shown, key))} are too few or too irregular to be "
                "those of a device, so power is not added up by it; if it is no device, rename or remove the column"
            )
    names = [" ".join(f"{shown_name(n)} {shown_name(v)}" for n, v in zip(columns, key, strict=True)) for key in found]
    return _Devices(columns, names, number)


def _refuse_unknown_devices(log: CsvLog, times: LogTimes, devices: _Devices, others: set[str]) -> None:
    """Refuse a log with another column that divides the rows as devices would."""
    for name in log.columns:
        if name in others or is_quantity(name):
            continue
        values = pc.unique(log.cells(name))
        if not 1 < len(values) <= MAX_DEVICES or len(values) * MIN_DEVICE_ROWS > len(log) or _has_fractions(log, name):
            continue
        codes = log.cells(name).dictionary_encode().indices.to_numpy()
        known_ns = times.ns[times.known]
        span_ns = known_ns.max() - known_ns.min() if len(known_ns) else 0
        for number in range(len(devices.names)):
            parts = [times.known & (devices.number == number) & (codes == code) for code in range(len(values))]
            parts = [part for part in parts if part.any()]
            spans = [times.ns[part].max() - times.ns[part].min() for part in parts]
            if len(parts) > 1 and min(spans) > 0.8 * span_ns and all(_alternates(times, part) for part in parts):
                raise InputError(
                    f"{log.path}: column {shown_name(name)} divides the rows as devices would; call it device, so that "
                    "their power is added, or remove it"
                )


def _has_fractions(log: CsvLog, name: str) -> bool:
    """Return whether a column holds numbers with fractions, which name no device."""
    cells = log.cells(name)
    if not log.number_or_missing(name).all():
        return False
    values = log.numbers(name)
    return bool(np.any(values[~np.isnan(values)] % 1)) and len(cells) > 0


def _is_regular(times: LogTimes, rows: Flags) -> bool:
    """Return whether rows come as those of one device: at equal times, or once in each round."""
    rows = rows & times.known
    own_ns = np.unique(times.ns[rows])
    if len(own_ns) < MIN_DEVICE_ROWS:
        return False
    order = np.argsort(times.ns[times.known], kind="stable")
    places = np.flatnonzero(rows[times.known][order])
    return any(_share_near_median(spacing) >= MIN_REGULAR_SHARE for spacing in (np.diff(own_ns), np.diff(places)))


def _alternates(times: LogTimes, rows: Flags) -> bool:
    """Return whether rows come once in each round of several."""
    order = np.argsort(times.ns, kind="stable")
    spacing = np.diff(np.flatnonzero(rows[order]))
    return len(spacing) + 1 >= 5 and float(np.median(spacing)) > 1 and _share_near_median(spacing) > 0.9


def _share_near_median(spacing: NDArray[np.int64]) -> float:
    median = float(np.median(spacing))
    return float(np.mean(np.abs(spacing - median) <= median / 2))


def _in_order(
    log: CsvLog,
    times: LogTimes,
    rows: NDArray[np.intp],
    readings: Mapping[PowerKind, PowerColumn],
    devices: _Devices,
    *,
    is_only: bool,
) -> NDArray[np.intp]:
    """Return the rows of one channel in order of time, each time once.

    Raises:
        InputError: one time has different powers, or times come in groups, as those of several devices do.
    """
    powers = np.column_stack([power.power_w[rows] for power in readings.values()])
    # A column each may be filled in rows of its own.
    kept = slice(None) if is_only else ~np.isnan(powers).all(axis=1)
    rows, powers = rows[kept], powers[kept]
    order = np.argsort(times.ns[rows], kind="stable")
    rows, powers = rows[order], powers[order]
    spacing_ns = np.diff(times.ns[rows])
    (again,) = np.nonzero(spacing_ns == 0)
    equal = (powers[again] == powers[again + 1]) | (np.isnan(powers[again]) & np.isnan(powers[again + 1]))
    differ = again[~equal.all(axis=1)]
    if len(differ) or (not devices.columns and len(again) > 0.01 * len(rows)):
        first, second = (
            log.line(int(rows[place])) for place in ((differ if len(differ) else again)[0] + np.array([0, 1]))
        )
        told = (
            f"column(s) {shown_names(devices.columns)} do not tell them apart"
            if devices.columns
            else "no column tells them apart"
        )
        raise InputError(
            f"{log.path}: lines {first} and {second} have the same time: are they several devices? {told}; add a "
            "column device, or remove what is there twice"
        )
    spacing_ns = spacing_ns[spacing_ns > 0]
    if not devices.columns and len(spacing_ns) >= 8:
        short = float(np.mean(spacing_ns < spacing_ns.mean() / 4))
        if short > MAX_CLUSTERED_SHARE:
            raise InputError(
                f"{log.path}: {100 * short:.0f} % of the rows come right after another, as those of several devices "
                "do, and no column tells them apart; add a column device"
            )
    return np.delete(rows, again + 1)


def _check_size(log: CsvLog, rows: NDArray[np.intp], readings: Mapping[PowerKind, PowerColumn], limit_w: float) -> None:
    for power in readings.values():
        with np.errstate(invalid="ignore"):
            bad = power.power_w[rows] > limit_w
        if bad.any():
            problem = f"has more than the {limit_w / 1e3:g} kW that can be; if it is in mW, call it power_mw"
            raise log.error(int(rows[np.argmax(bad)]), power.name, problem)


def _says(log: CsvLog, powers: Sequence[PowerColumn]) -> tuple[str, ...] | None:
    """Return the parts that the log says it is of; None if it says nothing."""
    if "boundary" in log.columns:
        parts = {part.strip() for text in pc.unique(log.cells("boundary")).to_pylist() for part in text.split("+")}
        return tuple(part for part in BOUNDARIES if part in parts) if parts <= set(BOUNDARIES) - {UNKNOWN} else None
    if "source" in log.columns:
        sources = {part for text in pc.unique(log.cells("source")).to_pylist() for part in text.split("+")}
        if sources <= SOURCE_DOMAINS.keys():
            domains = {domain for source in sources for domain in SOURCE_DOMAINS[source]}
            return tuple(part for part in BOUNDARIES if part in domains)
        return None
    if "domain" in log.columns:
        named = set(filter(None, pc.unique(log.cells("domain")).to_pylist()))
        summed_names = power_contract.summed_domains(named) if named <= _KNOWN_DOMAINS.keys() else ()
        return tuple(part for part in BOUNDARIES if part in summed_names) or None
    domains = {power.domain for power in powers}
    if UNKNOWN not in domains:
        return tuple(part for part in BOUNDARIES if part in domains)
    device_names = [name for name in device_columns(log, ()) if not _has_fractions(log, name)]
    of_gpus = any(words(name)[0] == "gpu" or log.cells(name)[0].as_py().startswith("GPU-") for name in device_names)
    return ("gpu",) if domains == {UNKNOWN} and of_gpus else None


def _domain(readings: Mapping[PowerKind, PowerColumn], parts: tuple[str, ...], labels: int) -> str:
    """Return the domain of a channel for messages: its own, that of all, or `sensor` where nothing says it."""
    own = next(iter(readings.values())).domain
    if labels > 1 and own != UNKNOWN:
        return own
    return parts[0] if len(parts) == 1 and parts[0] != UNKNOWN else "sensor"


def _source(log: CsvLog) -> str:
    """Return the source that the log names, or else the file."""
    names = pc.unique(log.cells("source")).to_pylist() if "source" in log.columns else []
    return "+".join(sorted(set(filter(None, names)))) or log.path.name


def _grade(log: CsvLog) -> Grade:
    """Return the weakest grade in the log; `sampled` where it states none."""
    if "grade" not in log.columns:
        return "sampled"
    stated = set(filter(None, pc.unique(log.cells("grade")).to_pylist()))
    if not stated or not stated <= set(POWER_GRADES):
        odd = ", ".join(shown(word) for word in sorted(stated - set(POWER_GRADES))[:5])
        raise InputError(f"{log.path}: column grade must hold one of {', '.join(POWER_GRADES)}; it has {odd or 'none'}")
    return weakest([grade for grade in POWER_GRADES if grade in stated])
