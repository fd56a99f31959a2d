"""The sampler's log: an append-only Arrow stream, which becomes power.parquet or a CSV file.

The CSV has a row for each reading of the channels that add up. Its first columns are the sum at the time of that
reading, with the other channels interpolated to it; the others are the reading itself, with everything that the
analysis needs, so that it gives the same figures from either file.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from inference_energy.acquire.power.base import PowerSample, PowerSource, SensorChannel
from inference_energy.contracts import power
from inference_energy.contracts.arrow_log import ArrowLog, LogStats, read_logs
from inference_energy.contracts.grades import weakest
from inference_energy.contracts.io import atomic_write, write_table
from inference_energy.contracts.plausible_power import PLAUSIBLE_POWER_W, implausible, limit_w
from inference_energy.contracts.power import summed_keys

CLOCK_ANCHOR = "clock_anchor"
SOURCE = "source"

_LABELS = ("source", "device", "domain")


class PowerStream:
    """Appends readings to a log, one batch at a time.

    The columns of a batch are made all at once, which costs a tenth of making a mapping for each row.

    Args:
        path: the file to make; its folder must be there.
        clock_anchor: one pair of monotonic and wall-clock time.
        sources: their descriptions, for the metadata.
        channels: channels of the sources, for their metadata.
    """

    def __init__(
        self,
        path: Path,
        clock_anchor: dict[str, int],
        sources: Sequence[PowerSource],
        channels: Sequence[SensorChannel] = (),
    ) -> None:
        facts = {CLOCK_ANCHOR: clock_anchor, SOURCE: [_described(source, channels) for source in sources]}
        metadata = {key: json.dumps(value) for key, value in facts.items()}
        self._log = ArrowLog(path, power.SCHEMA.with_metadata(metadata))

    def write(self, collected: Iterable[tuple[SensorChannel, Sequence[PowerSample]]]) -> None:
        """Write readings, given by channel; called by one thread at a time."""
        groups = [(channel, readings) for channel, readings in collected if readings]
        if groups:
            self._log.append(_columns(groups))

    def close(self) -> None:
        """End the stream."""
        self._log.close()


def _described(source: PowerSource, channels: Sequence[SensorChannel]) -> dict[str, Any]:
    """Return a source's metadata; the metadata of all channels of one device and domain are merged."""
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for channel in channels:
        if channel.source == source.name:
            limit = {} if channel.limit_w is None else {PLAUSIBLE_POWER_W: channel.limit_w}
            merged.setdefault((channel.device, channel.domain), {}).update({**channel.metadata, **limit})
    facts = [{"device": device, "domain": domain, **metadata} for (device, domain), metadata in merged.items()]
    return {**source.describe(), "channels": facts}


def _columns(groups: Sequence[tuple[SensorChannel, Sequence[PowerSample]]]) -> list[pa.Array]:
    """The readings of each channel as columns of the contract."""
    samples = chain.from_iterable(readings for _, readings in groups)
    values = dict(zip(PowerSample._fields, zip(*samples, strict=True), strict=True))
    for label in _LABELS:
        values[label] = tuple(getattr(channel, label) for channel, readings in groups for _ in readings)
    return [_array(values[column.name], column.type) for column in power.SCHEMA]


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return a column; a value that does not fit it, such as a huge integer of a broken tool, becomes null."""
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return pa.array([_fitting(value, kind) for value in values], kind)


def _fitting(value: Any, kind: pa.DataType) -> Any:
    try:
        return pa.scalar(value, kind).as_py()
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return None


def read_stream(path: Path) -> tuple[pa.Table, LogStats]:
    """Read a log, also one that was cut off, sorted by time.

    Raises:
        RunError: the file is missing, or was cut off before anything was written.
    """
    table, stats = read_logs([path])
    return table.sort_by("timestamp_ns"), stats


def write_power_log(log: pa.Table, path: Path) -> None:
    """Write a log as CSV (see `by_reading`) or as Parquet, a row per reading, with its metadata.

    Args:
        log: as `read_stream` returns it.
        path: the file to make, which ends in .csv or .parquet; its folder is made too.
    """
    if path.suffix == ".csv":
        with atomic_write(path) as partial:
            by_reading(log).to_csv(partial, index=False)
        return
    metadata = {key.decode(): value.decode() for key, value in (log.schema.metadata or {}).items()}
    write_table(path, log, power.SCHEMA, **metadata)


def compact_power_log(stream_path: Path, parquet_path: Path) -> LogStats:
    """Make power.parquet from a log, keeping its metadata.

    Raises:
        RunError: the log is missing or empty of even its schema.
    """
    table, stats = read_stream(stream_path)
    write_power_log(table, parquet_path)
    return stats


COLUMNS = ("time", "power_W", "gpu_util", "mem_used_bytes", "source", "grade")
"""Columns of a CSV log that are of the sum; those of the reading are `power.CSV_COLUMNS`."""

STALE_AFTER_S = 3.0
"""A channel without a reading this near to an instant has no value there."""


def by_reading(log: pa.Table) -> pd.DataFrame:
    """Return a row a reading of the channels that add up, in order of time.

    Args:
        log: power.parquet's columns with their metadata, sorted by time.

    Returns:
        The columns of `by_instant` at the time of the reading, then `boundary`, the domains that add up, and the
        reading: `channel_source`, `channel_device`, `channel_domain`, `channel_grade` (that of its source),
        `averaging_window_s` (`unknown` where the sensor does not say it, empty where the log does not) and columns of
        power.parquet. `time` has 9 decimals.
    """
    metadata = _metadata(log)
    frame, keys = log.to_pandas(), _summed(log)
    rows = frame[pd.MultiIndex.from_frame(frame[list(_LABELS)]).isin(list(keys))]
    # A source that counts has no power in its first row.
    rows = rows[rows["timestamp_ns"] >= rows.loc[_has_reading(rows), "timestamp_ns"].min()]
    if rows.empty:
        return pd.DataFrame(columns=[*COLUMNS, *power.CSV_COLUMNS])
    times_ns = rows["timestamp_ns"].to_numpy()
    sums = by_instant(log, times_ns)
    anchor = metadata[CLOCK_ANCHOR]
    unix_ns = times_ns - anchor["monotonic_ns"] + anchor["unix_ns"]
    grades = {source["name"]: source["grade"] for source in metadata[SOURCE]}
    windows = {
        key: power.UNKNOWN if (window_s := stated.get(power.AVERAGING_WINDOW_S, 0.0)) is None else str(window_s)
        for key, stated in power.channel_facts(metadata[SOURCE]).items()
    }
    facts = power.channel_facts(metadata[SOURCE])
    in_order = sorted(keys, key=lambda key: power.DOMAIN_ORDER.index(key[2]))
    own_keys = list(rows[list(_LABELS)].itertuples(index=False, name=None))
    own = {
        **{f"channel_{label}": rows[label].to_numpy() for label in _LABELS},
        "channel_grade": [grades[source] for source, _, _ in own_keys],
        power.AVERAGING_WINDOW_S: [windows.get(key, "") for key in own_keys],
        PLAUSIBLE_POWER_W: [facts.get(key, {}).get(PLAUSIBLE_POWER_W, "") for key in own_keys],
        power.LEFT_OUT: ["; ".join(map(str, facts.get(key, {}).get(power.LEFT_OUT, []))) for key in own_keys],
        **{name: rows[name].to_numpy() for name in power.SCHEMA.names if name in power.CSV_COLUMNS},
        "boundary": power.domains_text((key[2], grades[key[0]]) for key in in_order),
    }
    sums["time"] = [f"{at_ns // 10**9}.{at_ns % 10**9:09d}" for at_ns in unix_ns.tolist()]
    return sums.round(6).assign(**own)[[*COLUMNS, *power.CSV_COLUMNS]]


def _metadata(log: pa.Table) -> dict[str, Any]:
    return {key.decode(): json.loads(value) for key, value in log.schema.metadata.items() if key != b"host"}


def _has_reading(frame: pd.DataFrame) -> "pd.Series[bool]":
    return frame[["power_average_w", "power_instant_w", "energy_counter_j"]].notna().any(axis=1)


def _summed(log: pa.Table) -> frozenset[power.Key]:
    """Return the channels with power or a counter that add up."""
    frame = log.to_pandas()
    measured = frame[_has_reading(frame)]
    grades = {source["name"]: source["grade"] for source in _metadata(log)[SOURCE]}
    keys = set(measured[list(_LABELS)].itertuples(index=False, name=None))
    return summed_keys((key, grades[key[0]]) for key in keys)


def by_instant(log: pa.Table, instants_ns: np.ndarray[Any, Any] | None = None) -> pd.DataFrame:
    """One row a sampling instant.

    Args:
        log: power.parquet's columns with their metadata, sorted by time.
        instants_ns: the instants, ascending; None takes those of the channel that was read most often.

    Returns:
        `time` (unix s), `power_W` (the sum; NaN where one of its parts has no reading near), `gpu_util` (percent, mean
        over GPUs), `mem_used_bytes` (sum over GPUs), `source` (joined by +) and `grade` (the weakest part's).
    """
    metadata = _metadata(log)
    frame = log.to_pandas()
    for column in ("power_average_w", "power_instant_w"):
        frame[column] = frame[column].where(_plausible(frame, column, metadata["source"]))
    frame["power_w"] = frame["power_average_w"].fillna(frame["power_instant_w"])
    powers = frame.dropna(subset=["power_w"])
    grades = {source["name"]: source["grade"] for source in metadata["source"]}
    by_channel = dict(iter(powers.groupby(["source", "device", "domain"], sort=True)))
    keys = summed_keys((key, grades[key[0]]) for key in by_channel)
    parts = {key: part for key, part in by_channel.items() if key in keys}
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    if instants_ns is None:
        instants_ns = max(parts.values(), key=len)["timestamp_ns"].to_numpy()
    total_w = sum(_at(instants_ns, part, "power_w") for part in parts.values())

    anchor = metadata["clock_anchor"]
    gpu = frame[frame["domain"] == "gpu"]
    by_gpu = [part for _, part in gpu.groupby("device")]
    used = [_at(instants_ns, part, "utilization") for part in by_gpu]
    memory = [_at(instants_ns, part, "memory_used_bytes") for part in by_gpu]
    return pd.DataFrame(
        {
            "time": (instants_ns - anchor["monotonic_ns"]) / 1e9 + anchor["unix_ns"] / 1e9,
            "power_W": total_w,
            "gpu_util": np.mean(used, axis=0) * 100 if used else np.nan,
            "mem_used_bytes": np.sum(memory, axis=0) if memory else np.nan,
            "source": "+".join(sorted({source for source, _, _ in parts})),
            "grade": weakest(_grade(part, grades) for part in parts.values()),
        },
        columns=list(COLUMNS),
    )


def _plausible(frame: pd.DataFrame, column: str, sources: Any) -> np.ndarray[Any, Any]:
    """Return which readings of a power can be, each by its channel's limit."""
    facts = power.channel_facts(sources)
    keys = zip(frame["source"], frame["device"], frame["domain"], strict=True)
    limits_w = {key: limit_w(key[2], facts.get(key, {})) for key in dict.fromkeys(keys)}
    highest_w = [limits_w[key] for key in zip(frame["source"], frame["device"], frame["domain"], strict=True)]
    return ~implausible(frame[column].to_numpy(dtype=np.float64), np.array(highest_w))


def _at(instants_ns: np.ndarray[Any, Any], part: pd.DataFrame, column: str) -> np.ndarray[Any, Any]:
    """Interpolate a channel's column to the instants; NaN further than `STALE_AFTER_S` from a reading."""
    readings = part.dropna(subset=[column])
    if readings.empty:
        return np.full(len(instants_ns), np.nan)
    at_ns = readings["timestamp_ns"].to_numpy()
    after = np.clip(np.searchsorted(at_ns, instants_ns), 0, len(at_ns) - 1)
    before = np.clip(after - 1, 0, None)
    apart_ns = np.minimum(np.abs(at_ns[after] - instants_ns), np.abs(instants_ns - at_ns[before]))
    # Relative times, because ns since boot do not fit a float exactly.
    values = np.interp((instants_ns - at_ns[0]).astype(float), (at_ns - at_ns[0]).astype(float), readings[column])
    return np.where(apart_ns <= STALE_AFTER_S * 1e9, values, np.nan)


def _grade(part: pd.DataFrame, grades: dict[str, str]) -> str:
    """The grade of a channel's power: `counter` only where the power comes from the energy counter of the same row."""
    grade = grades[part["source"].iloc[0]]
    return "sampled" if grade == "counter" and part["energy_counter_j"].isna().all() else grade
