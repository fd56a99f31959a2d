"""Which rows of another tool's power log are of which device, so that each has a series of its own.

A logger asks one device after the other, so each device has a row in each round. Rows that are divided otherwise are of
no devices; rows that look like several devices, with no column that tells them apart, are refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from inference_energy.analysis.csv_log import CsvLog, LogTimes, shown, shown_name, shown_names
from inference_energy.analysis.power_columns import PowerColumn, device_columns, is_quantity, words
from inference_energy.analysis.power_series import PowerKind
from inference_energy.contracts import power as power_contract
from inference_energy.contracts.power import SOURCE_DOMAINS
from inference_energy.errors import InputError

MAX_DEVICES = 1024
MAX_UNKNOWN_DEVICES = 16

MIN_REGULAR_SHARE = 0.7
"""Share of the spacings between a device's rows that are within half of their median. A logger asks one device after
the other; rows that are told apart by something else, such as a utilization, come at random."""

MIN_DEVICE_ROWS = 3
MAX_CLUSTERED_SHARE = 0.4
"""Share of spacings below a quarter of the mean, above which rows come in groups. Of random times 22 % are."""

_WHOLE, _PART = frozenset(("package", "pkg")), frozenset(("core", "cores", "uncore", "pp0", "pp1"))
_TOTAL = frozenset(("psys", "platform", "total", "sum", "all", "overall"))

KNOWN_DOMAINS = {domain: (domain,) for domain in power_contract.DOMAINS}


@dataclass(frozen=True)
class Devices:
    """The devices of a log's rows.

    Attributes:
        columns: the columns that tell them apart; none where there is one device.
        names: each device's name, such as `host a gpu 3`; empty without such columns.
        number: the place in `names` of each row's device; shape (rows,).
    """

    columns: list[str]
    names: list[str]
    number: NDArray[np.int64]


def of_summed_domains(log: CsvLog, times: LogTimes) -> LogTimes:
    """Return the times without rows of domains, or of sources, that contain others, by the columns of these names.

    Raises:
        InputError: it is not known whether they do.
    """
    for name, known in (("domain", KNOWN_DOMAINS), ("source", SOURCE_DOMAINS)):
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


def find_devices(log: CsvLog, times: LogTimes, others: set[str]) -> Devices:
    """Return the devices by all columns that are called as devices are, and differ between rows.

    Raises:
        InputError: rows with one value are too few, or too irregular, to be those of a device.
    """
    columns = []
    for name in device_columns(log, others):
        values = pc.unique(log.cells(name))
        is_row_number = len(values) == len(log) > 2
        if len(values) > 1 and not is_row_number and not has_fractions(log, name):
            columns.append(name)
    if not columns:
        return Devices([], [""], np.zeros(len(log), dtype=np.int64))
    cells = [log.cells(name).to_pylist() for name in columns]
    keys = list(zip(*cells, strict=True))
    found = list(dict.fromkeys(keys))
    told_by = f"column(s) {shown_names(columns)}"
    if len(found) > MAX_DEVICES:
        raise InputError(f"{log.path}: {told_by} have {len(found)} values; devices are at most {MAX_DEVICES}")
    for name, values in zip(columns, cells, strict=True):
        if "" in values:
            raise log.error(values.index(""), name, "does not say the device")
        nested = _nested(list(dict.fromkeys(values)))
        if nested:
            raise InputError(
                f"{log.path}: column {shown_name(name)} has {shown_names(nested)}, which may contain each other, so "
                "they are not added; keep those that add up"
            )
    place = {key: number for number, key in enumerate(found)}
    number = np.array([place[key] for key in keys], dtype=np.int64)
    for index, (places, times_ns) in _groups(times, number).items():
        if not _is_regular(places, times_ns):
            raise InputError(
                f"{log.path}: {told_by}: the rows of {', '.join(map(shown, found[index]))} are too few or too "
                "irregular to be those of a device, so power is not added up by it; if it is none, rename or remove it"
            )
    names = [" ".join(f"{shown_name(n)} {shown_name(v)}" for n, v in zip(columns, key, strict=True)) for key in found]
    return Devices(columns, names, number)


def _nested(values: list[str]) -> list[str]:
    """Return two names of which one contains the other: RAPL's zones, or a total beside its parts; else nothing."""
    for value in values:
        parts = set(words(value))
        for other in values:
            within = other.startswith(f"{value}:") or bool(parts & _WHOLE and set(words(other)) & _PART)
            if other != value and (within or parts & _TOTAL):
                return [value, other]
    return []


def refuse_unknown_devices(log: CsvLog, times: LogTimes, devices: Devices, others: set[str]) -> None:
    """Refuse a log with another column that divides the rows as devices would."""
    known_ns = times.ns[times.known]
    for name in log.columns:
        if name in others or is_quantity(name) or not len(known_ns):
            continue
        values = pc.unique(log.cells(name))
        if not 1 < len(values) <= MAX_UNKNOWN_DEVICES or has_fractions(log, name):
            continue
        codes = log.cells(name).dictionary_encode().indices.to_numpy()
        by_device: dict[int, list[bool]] = {}
        for group, (places, times_ns) in _groups(times, devices.number * len(values) + codes).items():
            spans = times_ns[-1] - times_ns[0] > 0.8 * (known_ns.max() - known_ns.min())
            by_device.setdefault(group // len(values), []).append(bool(spans) and _alternates(places))
        if any(len(parts) > 1 and all(parts) for parts in by_device.values()):
            raise InputError(
                f"{log.path}: column {shown_name(name)} divides the rows as devices would; call it device, so that "
                "their power is added, or remove it"
            )


def _groups(times: LogTimes, codes: NDArray[np.int64]) -> dict[int, tuple[NDArray[np.intp], NDArray[np.int64]]]:
    """Return, for each code, the places of its rows among all rows in order of time, and their times."""
    rows = np.flatnonzero(times.known)
    rows = rows[np.argsort(times.ns[rows], kind="stable")]
    places = np.argsort(codes[rows], kind="stable")
    found, firsts = np.unique(codes[rows][places], return_index=True)
    pieces = np.split(places, firsts[1:])
    return {int(code): (piece, times.ns[rows[piece]]) for code, piece in zip(found, pieces, strict=True) if len(piece)}


def has_fractions(log: CsvLog, name: str) -> bool:
    """Return whether a column holds numbers with fractions, which name no device."""
    cells = log.cells(name)
    if not log.number_or_missing(name).all():
        return False
    values = log.numbers(name)
    return bool(np.any(values[~np.isnan(values)] % 1)) and len(cells) > 0


def _is_regular(places: NDArray[np.intp], times_ns: NDArray[np.int64]) -> bool:
    """Return whether rows come as those of one device: at equal times, or once in each round."""
    own_ns = np.unique(times_ns)
    if len(own_ns) < MIN_DEVICE_ROWS:
        return False
    return any(_share_near_median(spacing) >= MIN_REGULAR_SHARE for spacing in (np.diff(own_ns), np.diff(places)))


def _alternates(places: NDArray[np.intp]) -> bool:
    """Return whether rows come once in each round of several."""
    spacing = np.diff(places)
    return len(spacing) + 1 >= 5 and float(np.median(spacing)) > 1 and _share_near_median(spacing) > 0.9


def _share_near_median(spacing: NDArray[np.int64]) -> float:
    median = float(np.median(spacing))
    return float(np.mean(np.abs(spacing - median) <= median / 2))


def rows_in_order(
    log: CsvLog,
    times: LogTimes,
    rows: NDArray[np.intp],
    readings: Mapping[PowerKind, PowerColumn],
    devices: Devices,
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
