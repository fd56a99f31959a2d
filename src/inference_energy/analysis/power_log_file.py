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
import pyarrow.compute as pc
from numpy.typing import NDArray

from inference_energy.analysis.csv_log import (
    Clock,
    CsvLog,
    read_csv_log,
    shown,
    shown_name,
    shown_names,
)
from inference_energy.analysis.power_columns import (
    PowerColumn,
    device_columns,
    lacks,
    power_columns,
    time_column,
    words,
)
from inference_energy.analysis.power_devices import (
    KNOWN_DOMAINS,
    find_devices,
    has_fractions,
    of_summed_domains,
    refuse_unknown_devices,
    rows_in_order,
)
from inference_energy.analysis.power_series import PowerKind, PowerSeries, boundary, series_from_log, summed
from inference_energy.contracts import power as power_contract
from inference_energy.contracts.grades import POWER_GRADES, Grade, weakest
from inference_energy.contracts.io import read_metadata, read_table
from inference_energy.contracts.plausible_power import PLAUSIBLE_POWER_W
from inference_energy.contracts.power import AVERAGING_WINDOW_S, BOUNDARIES, LEFT_OUT, SOURCE_DOMAINS, UNKNOWN
from inference_energy.errors import InputError

MAX_GPU_W = 10_000.0
MAX_POWER_W = 200_000.0
MIN_SUM_LIMIT_W, SPIKE_FACTOR = 5000.0, 20.0
"""A column of nobody knows how many devices is held to this multiple of its median, and not to less than that."""
"""More than one GPU, and more than one rack, can draw: such a column holds mW, or no power."""

MAX_NUMBER = 2.0**60
MAX_AVERAGING_S = 3600.0

WITHOUT_SENSOR_ERROR = frozenset({"node", "wall", UNKNOWN})
"""Boundaries of which the stated errors of a card's sensor say nothing."""


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
    log = read_csv_log(path)
    ours = ["time", *power_contract.CSV_COLUMNS]
    absent = [name for name in ours if name not in log.columns]
    if not absent:
        return _own_csv(log, reading, stated)
    if any(name.startswith("channel_") and name in ours for name in log.columns):
        # Its power_W is the sum in each row, so it must not be read as that of the row's device.
        raise lacks(log, absent)
    return _foreign(log, reading, stated, zone)


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


def _own_csv(log: CsvLog, reading: PowerKind, stated: tuple[str, ...] | None) -> PowerLog:
    """Return the log of `log-power`, whose rows are those of power.parquet."""
    times = log.times("time", None)
    if times.clock != "unix" or not times.known.all():
        raise InputError(f"{log.path}: column time must hold Unix time in each row")
    numbers = {name: log.numbers(name) for name in power_contract.SCHEMA.names if name in power_contract.CSV_COLUMNS}
    for name, values in numbers.items():
        with np.errstate(invalid="ignore"):
            bad = np.abs(values) > MAX_NUMBER
        if bad.any():
            raise log.error(int(np.argmax(bad)), name, "has something that cannot be")
    labels = {name: log.cells(f"channel_{name}").to_pylist() for name in ("source", "device", "domain")}
    for place, domain in enumerate(labels["domain"]):
        if domain not in power_contract.DOMAINS:
            raise log.error(place, "channel_domain", "has something that is no domain")
    grades = _one_each(log, labels["source"], "channel_grade")
    windows = _one_each(log, list(zip(*labels.values(), strict=True)), AVERAGING_WINDOW_S)
    sources: dict[str, dict[str, Any]] = {
        name: {"name": name, "grade": grade, "channels": []} for name, grade in grades.items()
    }
    keys = list(zip(*labels.values(), strict=True))
    limits, left_out = _one_each(log, keys, PLAUSIBLE_POWER_W), _one_each(log, keys, LEFT_OUT)
    for key, text in windows.items():
        source, device, domain = key
        facts: dict[str, Any] = {"device": device, "domain": domain}
        if limits[key]:
            facts[PLAUSIBLE_POWER_W] = _stated(log, PLAUSIBLE_POWER_W, limits[key], MAX_NUMBER)
        if left_out[key]:
            facts[LEFT_OUT] = left_out[key].split("; ")
        if text:
            facts[AVERAGING_WINDOW_S] = (
                None if text == UNKNOWN else _stated(log, AVERAGING_WINDOW_S, text, MAX_AVERAGING_S)
            )
            sources[source]["channels"].append(facts)
    frame = pd.DataFrame({"timestamp_ns": times.ns, **labels, **numbers}).reindex(columns=power_contract.SCHEMA.names)
    return _own(log.path, frame, list(sources.values()), reading, 0, stated)


def _one_each(log: CsvLog, keys: Sequence[Any], column: str) -> dict[Any, str]:
    """Return the cell of each key, which must be the same in all its rows."""
    found: dict[Any, str] = {}
    for place, (key, cell) in enumerate(zip(keys, log.cells(column).to_pylist(), strict=True)):
        if found.setdefault(key, cell) != cell:
            raise log.error(place, column, "has another value than rows of the same channel before")
    return found


def _stated(log: CsvLog, column: str, text: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 <= value <= most:
        raise InputError(f"{log.path}: column {column} has something that cannot be: {shown(text)}")
    return value


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
        withheld={name: (times_ns + offset_ns, values) for name, (times_ns, values) in channel.withheld.items()},
        counter_breaks_ns=channel.counter_breaks_ns + offset_ns,
    )


def _foreign(log: CsvLog, reading: PowerKind, stated: tuple[str, ...] | None, zone: tzinfo | None) -> PowerLog:
    column = time_column(log, "time")
    powers, assumptions = power_columns(log, stated)
    times = log.times(column, zone)
    if not any((times.known & ~np.isnan(power.power_w)).any() for power in powers):
        raise InputError(f"{log.path}: no row has both {shown_name(column)} and {shown_name(powers[0].name)}")
    for power in powers:
        if empty := int(np.isnan(power.power_w).sum()):
            rows_are = f"{empty} of {len(log)} rows hold"
            assumptions = [*assumptions, f"{rows_are} no power in {shown_name(power.name)} and are left out"]
    times = of_summed_domains(log, times)
    devices = find_devices(log, times, {column, *(power.name for power in powers)})
    refuse_unknown_devices(log, times, devices, {column, *(power.name for power in powers), *devices.columns})
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
            kept = rows_in_order(log, times, rows, readings, devices, is_only=len(labels) == 1)
            if not len(kept):
                continue
            domain = _domain(readings, parts, len(labels))
            name = " ".join(filter(None, (device, label))) or ("all" if domain != "sensor" else domain)
            limit_w = MAX_GPU_W if domain == "gpu" and (devices.columns or len(labels) > 1) else MAX_POWER_W
            _check_size(log, kept, readings, limit_w)
            if limit_w == MAX_POWER_W:
                typical_w = max(float(np.nanmedian(power.power_w[kept])) for power in readings.values())
                limit_w = min(limit_w, max(MIN_SUM_LIMIT_W, SPIKE_FACTOR * typical_w))
            values = {f"power_{kind}_w": power.power_w[kept] for kind, power in readings.items()}
            labelled = {"timestamp_ns": times.ns[kept], "source": source, "device": name, "domain": domain}
            pieces.append(pd.DataFrame({**labelled, **values}))
            # A column may be the sum of several devices; one of a single GPU is held to what a GPU can draw.
            limit = {} if limit_w == MAX_GPU_W else {PLAUSIBLE_POWER_W: limit_w}
            facts.append({"device": name, "domain": domain, AVERAGING_WINDOW_S: 0.0, **limit})
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


def _check_size(log: CsvLog, rows: NDArray[np.intp], readings: Mapping[PowerKind, PowerColumn], limit_w: float) -> None:
    """Refuse a column whose values cannot be power in W; a few of them are withheld later, as of any sensor."""
    for power in readings.values():
        values = power.power_w[rows]
        known = int(np.sum(~np.isnan(values)))
        kilowatt = f"{limit_w / 1e3:g} kW that can be; if it is in mW, call it power_mw"
        with np.errstate(invalid="ignore"):
            checks = (
                (values > limit_w, f"has mostly more than the {kilowatt}"),
                (values < 0, "has mostly negative power"),
            )
        for bad, problem in checks:
            if bad.sum() > known / 2:
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
        summed_names = power_contract.summed_domains(named) if named <= KNOWN_DOMAINS.keys() else ()
        return tuple(part for part in BOUNDARIES if part in summed_names) or None
    domains = {power.domain for power in powers}
    if UNKNOWN not in domains:
        return tuple(part for part in BOUNDARIES if part in domains)
    device_names = [name for name in device_columns(log, ()) if not has_fractions(log, name)]
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
