"""Which columns of another tool's CSV hold time, power and devices, by their names.

A name is read word by word: `power.draw.average [W]` is a power in W, averaged; `gpu0_power_mw` is the power of gpu0 in
mW. Limits, states and energies are no power. Where two columns may both be meant, the log is refused and they are
named.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from inference_energy.analysis.csv_log import CsvLog, shown_name, shown_names
from inference_energy.analysis.integration import Values
from inference_energy.analysis.power_series import PowerKind
from inference_energy.contracts.power import UNKNOWN
from inference_energy.errors import InputError


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


POWER_UNITS = {"W": 1.0, "watts": 1.0, "watt": 1.0, "Watts": 1.0, "Watt": 1.0, "mW": 1e-3, "kW": 1e3, "uW": 1e-6}

_UNIT_WORDS = {
    **dict.fromkeys(("W", "w", "watt", "watts", "Watt", "Watts", "WATT", "WATTS"), "W"),
    **dict.fromkeys(("mW", "mw", "milliwatt", "milliwatts"), "mW"),
    **dict.fromkeys(("kW", "kw", "KW", "kilowatt", "kilowatts"), "kW"),
    **dict.fromkeys(("uW", "uw", "µW", "microwatt", "microwatts"), "uW"),
    "MW": "MW",
}
_POWER_WORDS = {"power", "pwr", "wattage", "powerdraw", "powerusage"}
_NO_POWER_WORDS = _word_set(
    "limit cap max min enforced default tdp state management factor requested peak std stddev error percent pct mode "
    "smoothing supported violation violations samples count energy j kj mj joule joules wh kwh mwh apparent reactive "
    "va var reasons reason throttle brake source grade type name unit plan profile level per"
)
_PLAIN_WORDS = _word_set("draw drawn usage used consumption consumed reading value board active real meter measured")
_READINGS: dict[str, PowerKind] = {
    **dict.fromkeys(("average", "avg", "mean", "averaged"), "average"),
    **dict.fromkeys(("instant", "instantaneous", "inst"), "instant"),
}
_TOTALS = {"", "total", "sum", "all", "overall", "combined"}
_DOMAIN_OF_WORD = {
    **dict.fromkeys(("gpu", "gpus", "nvidia", "amd", "gcd"), "gpu"),
    **dict.fromkeys(("cpu", "cpus", "package", "pkg", "socket", "cpu_package", "cpu_pkg", "cpu_socket"), "cpu_package"),
    **dict.fromkeys(("dram", "ram"), "dram"),
    **dict.fromkeys(("node", "system", "server", "host", "machine", "chassis"), "node"),
    **dict.fromkeys(("wall", "plug", "outlet", "socket_outlet"), "wall"),
}
_DISJOINT = {"gpu", "cpu_package", "dram"}
_CODECARBON = {"cpu_power", "gpu_power", "ram_power"}
"""CodeCarbon models the power of memory from its size or modules, and that of a CPU without a counter from its load
(its documentation, Methodology)."""

_TIME_WORDS = _word_set(
    "time timestamp timestamps date datetime ts epoch unix unixtime elapsed t walltime seconds date_time time_stamp "
    "unix_time unix_timestamp wall_time elapsed_time time_elapsed epoch_time timestamp_utc time_utc timestamp_unix "
    "time_unix timestamp_epoch time_epoch"
)
_TIME_UNITS = _word_set("s sec secs seconds ms millis milliseconds us micros microseconds ns nanos nanoseconds")

_DEVICE_WORDS = _word_set(
    "gpu device dev card node host hostname server machine instance accelerator accel chip gcd xcd die module slot "
    "socket package rank zone sensor channel outlet plug meter domain source partition mig bus pci component part psu "
    "rail tile hpu tpu npu xpu dcu rack chassis blade phase board worker cpu nic entity"
)
_DEVICE_SUFFIXES = _word_set("id idx index name uuid number num no ordinal serial minor label key bdf nr local global")
_BARE_DEVICES = _word_set("index idx uuid minor serial ordinal name id label bdf nr number")
_QUANTITIES = _word_set(
    "util utilization utilisation memory mem used free total temperature temp temp_c clock clocks sm mhz fan pstate "
    "throttle reasons reason event events energy voltage current limit power watt watts percent pct grade version "
    "state boundary averaging window latency unit driver vbios ecc errors processes mode bytes mib gib c rpm volts "
    "amps load usage speed throughput tokens requests"
)


@dataclass(frozen=True)
class PowerColumn:
    """A column of power.

    Attributes:
        name: its name in the file.
        label: the device or part whose power it is, by its name; empty where the name says none.
        reading: average or instant power; average where the name says nothing.
        says_reading: whether its name says which.
        domain: the boundary that the name says, or `unknown`.
        unit: its unit.
        power_w: power [W], NaN where there is none; shape (rows,).
    """

    name: str
    label: str
    reading: PowerKind
    says_reading: bool
    domain: str
    unit: str
    power_w: Values


def time_column(log: CsvLog, preferred: str) -> str:
    """Return the column of the time.

    Args:
        log: the log.
        preferred: its usual name, which is taken if it is there.

    Raises:
        InputError: there is none, or more than one.
    """
    if preferred in log.columns:
        return preferred
    found = [name for name in log.columns if _time_name(name) in _TIME_WORDS]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{log.path}: which of the columns {shown_names(found)} is the time? Call it {preferred}")
    raise lacks(log, [preferred])


def lacks(log: CsvLog, names: Sequence[str]) -> InputError:
    """Return the error that columns are absent."""
    return InputError(f"{log.path}: lacks the column(s) {', '.join(names)}; it has {shown_names(log.columns)}")


def power_columns(log: CsvLog, stated: Collection[str] | None) -> tuple[list[PowerColumn], list[str]]:
    """Return the columns whose power adds up, and sentences on what was taken for granted.

    Args:
        log: the log.
        stated: parts of the boundary that the user stated, which chooses among columns of different parts.

    Raises:
        InputError: there is no power, or columns may overlap.
    """
    found = [column for name in log.columns if (column := _power_column(log, name)) is not None]
    if not found:
        raise lacks(log, ["power_W"])
    chosen = _of_boundary(found, stated)
    if log.columns.keys() >= _CODECARBON and {column.name for column in chosen} & _CODECARBON != {"gpu_power"}:
        raise InputError(
            f"{log.path}: these are CodeCarbon's columns; its ram_power, and often its cpu_power, are modelled, not "
            "measured: take the GPU alone with --boundary gpu"
        )
    kept = _without_total(log, chosen)
    kept = [
        column for label in dict.fromkeys(column.label for column in kept) for column in _readings(log, kept, label)
    ]
    by_label: dict[tuple[str, PowerKind], str] = {}
    for column in kept:
        other = by_label.setdefault((column.label, column.reading), column.name)
        if other != column.name:
            raise _overlap(log, [other, column.name])
    stems = {_stem(column.label) for column in kept}
    domains = {column.domain for column in kept}
    if len(stems) > 1 and not domains <= _DISJOINT:
        raise _overlap(log, [column.name for column in kept])
    assumed = [shown_name(column.name) for column in kept if column.unit == ""]
    return kept, [f"the power of column(s) {', '.join(assumed)} is in W"] if assumed else []


def device_columns(log: CsvLog, others: Collection[str]) -> list[str]:
    """Return the columns that are called as devices are, except `others`."""
    return [name for name in log.columns if name not in others and _is_device(words(name))]


def is_quantity(name: str) -> bool:
    """Return whether a column is called as something that is measured, or noted beside it."""
    return bool(set(words(name)) & _QUANTITIES)


def words(name: str) -> list[str]:
    """Return the words of a column's name in small letters: `gpuIndex` and `GPU index` are gpu and index."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.findall(r"[0-9a-zµ]+", split.lower())


def _time_name(name: str) -> str:
    parts = words(name)
    return "_".join(parts[:-1] if len(parts) > 1 and parts[-1] in _TIME_UNITS else parts)


def _is_device(parts: list[str]) -> bool:
    """Return whether these are a device's words: `gpu`, `gpu_id`, `pci_bus_id`, `index`."""
    named = [part for part in parts if part in _DEVICE_WORDS]
    rest = [part for part in parts if part not in _DEVICE_WORDS]
    bare = len(parts) == 1 and parts[0] in _BARE_DEVICES
    return bare or (bool(named) and all(part in _DEVICE_SUFFIXES for part in rest))


def _power_column(log: CsvLog, name: str) -> PowerColumn | None:
    """Return the column if it is one of power."""
    unit, parts = "", []
    for word in re.findall(r"[0-9A-Za-zµ]+", name):
        if word in _UNIT_WORDS:
            unit = _UNIT_WORDS[word]
        else:
            parts += words(word)
    is_power = bool(unit) or bool(set(parts) & _POWER_WORDS)
    if not is_power or set(parts) & _NO_POWER_WORDS:
        return None
    if unit == "MW":
        raise InputError(f"{log.path}: column {shown_name(name)}: is MW mega- or milliwatt? Write mW or W")
    readings = [_READINGS[part] for part in parts if part in _READINGS]
    label = "_".join(part for part in parts if part not in _POWER_WORDS | _PLAIN_WORDS | set(_READINGS))
    power_w, said = log.quantities(name, POWER_UNITS, unit or None)
    domain = "gpu" if parts[:2] == ["power", "draw"] else _domain(label)
    return PowerColumn(name, label, readings[0] if readings else "average", bool(readings), domain, said or "", power_w)


def _readings(log: CsvLog, columns: Sequence[PowerColumn], label: str) -> list[PowerColumn]:
    """Return the columns of one label that hold power; of those that are called average or instant, not the plain one.

    Raises:
        InputError: none of them holds power, while those of other labels do.
    """
    own = [column for column in columns if column.label == label]
    full = [column for column in own if not np.isnan(column.power_w).all()]
    if not full and any(not np.isnan(column.power_w).all() for column in columns):
        raise InputError(
            f"{log.path}: column {shown_name(own[0].name)} has no power, so the sum lacks a part; remove it"
        )
    full = full or own
    return [column for column in full if column.says_reading] or full


def _of_boundary(found: list[PowerColumn], stated: Collection[str] | None) -> list[PowerColumn]:
    """Return the columns of the stated boundary, where their names say what they are of."""
    domains = {column.domain for column in found}
    if stated is None or len(domains) < 2 or not set(stated) <= domains:
        return found
    return [column for column in found if column.domain in stated]


def _without_total(log: CsvLog, found: list[PowerColumn]) -> list[PowerColumn]:
    """Return the columns without the one that is the sum of the others.

    Raises:
        InputError: a column is called a total, and is not.
    """
    labels = {column.label for column in found}
    stems = {_stem(label) for label in labels if label != _stem(label)}
    totals = {label for label in labels if label in _TOTALS or label in stems}
    parts = [column for column in found if column.label not in totals]
    if not totals or not parts:
        return found
    for column in (column for column in found if column.label in totals):
        same = [part.power_w for part in parts if part.reading == column.reading]
        sums = np.sum(same, axis=0) if same else np.full(len(column.power_w), np.nan)
        with np.errstate(invalid="ignore"):
            apart = np.abs(sums - column.power_w) > 0.02 * np.abs(column.power_w)
        known = ~np.isnan(sums) & ~np.isnan(column.power_w)
        if not known.any() or np.mean(apart[known]) > 0.05:
            raise _overlap(log, [column.name, *(part.name for part in parts)])
    return parts


def _overlap(log: CsvLog, names: Sequence[str]) -> InputError:
    return InputError(
        f"{log.path}: the columns {shown_names(names)} may contain each other, so they are not added: keep those "
        "that add up, or name the part with --boundary"
    )


def _stem(label: str) -> str:
    """Return a label without its numbers: that of `gpu0` and of `gpu_1` is `gpu`."""
    return re.sub(r"_+", "_", re.sub(r"\d+", "", label)).strip("_")


def _domain(label: str) -> str:
    stem = _stem(label)
    if stem in _DOMAIN_OF_WORD:
        return _DOMAIN_OF_WORD[stem]
    first, _, last = stem.rpartition("_")
    return _DOMAIN_OF_WORD.get(last, UNKNOWN) if _DOMAIN_OF_WORD.get(first) == "node" and last == "gpu" else UNKNOWN
