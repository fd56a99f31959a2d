"""Power and request logs as a user hands them in: CSV with unix times, or Parquet in the form of the contracts.

Both become the same thing: channels of power, and a table of requests, with times in unix ns. Monotonic times become
unix times by the clock anchor in the file's metadata.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from inference_energy.analysis.channels import Channel, Reading, channels, summed
from inference_energy.analysis.channels import boundary as boundary_of
from inference_energy.contracts import power as power_contract
from inference_energy.contracts import requests as requests_contract
from inference_energy.contracts.figure import GRADES_WORST_LAST, Grade, worst
from inference_energy.contracts.power import GRADES
from inference_energy.contracts.tables import read_metadata, read_table
from inference_energy.errors import InputError

POWER_COLUMNS = ("time", "power_W", "gpu_util", "mem_used_bytes")
REQUEST_COLUMNS = ("timestamp", "prompt_tokens", "completion_tokens", "latency")

_WENT_WELL = ("ok", "success", "200")
_BOUNDARY = {"nvml": "gpu", "rapl": "cpu_package and dram (rapl)", "modelled": "cpu (modelled)"}


def read_power_log(path: Path, reading: Reading) -> tuple[list[Channel], str]:
    """The channels of a power log that add up, and what they contain.

    Args:
        path: CSV with `time` (unix s), `power_W` and, where known, `gpu_util`, `mem_used_bytes`, `grade` and `source`;
            or a power.parquet. Without a grade the power counts as sampled, without a source as that of the GPU.
        reading: which power of a Parquet log is integrated.

    Raises:
        InputError: the file or a column is missing or cannot be used.
    """
    if _is_parquet(path):
        found = summed(channels(read_table(path, power_contract.SCHEMA), read_metadata(path).get("source"), reading))
        if not found:
            raise InputError(f"{path}: holds no power that can be added up")
        return [_shifted(channel, _offset_ns(path)) for channel in found], boundary_of(found)
    table = _csv(path, POWER_COLUMNS[:2])
    time_s, power_w = _numbers(path, table, "time"), _numbers(path, table, "power_W")
    known = ~np.isnan(time_s) & ~np.isnan(power_w)
    times_ns = np.round(time_s[known] * 1e9).astype(np.int64)
    order = np.argsort(times_ns, kind="stable")
    if not len(order):
        raise InputError(f"{path}: no row has both time and power_W")
    source = str(table["source"].iloc[0]) if "source" in table else ""
    nothing_ns, nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
    channel = Channel(
        source=source or str(path.name),
        device="all",
        domain="gpu",
        grade=_csv_grade(path, table),
        reading="average",
        times_ns=times_ns[order],
        power_w=power_w[known][order],
        counter_times_ns=nothing_ns,
        counter_j=nothing,
        empty_times_ns=nothing_ns,
        event_times_ns=nothing_ns,
        event_bits=nothing_ns,
    )
    boundary = " + ".join(_BOUNDARY.get(part, part) for part in source.split("+")) if source else "gpu"
    return [channel], boundary


def read_request_log(path: Path) -> pd.DataFrame:
    """A table of requests: `start_ns`, `end_ns`, `prompt_tokens`, `completion_tokens` (NaN where unknown) and `ok`.

    Args:
        path: CSV with `timestamp` (unix s, when sent), `prompt_tokens`, `completion_tokens`, `latency` (s) and, where
            known, `status`; or a requests.parquet.

    Raises:
        InputError: the file or a column is missing or cannot be used, or there is no request.
    """
    if _is_parquet(path):
        frame = read_table(path, requests_contract.SCHEMA)
        frame = frame[frame["sent_ns"].notna()]
        offset_ns = _offset_ns(path)
        start_ns = frame["sent_ns"].to_numpy(dtype=np.int64) + offset_ns
        end_ns = frame["end_ns"].fillna(frame["sent_ns"]).to_numpy(dtype=np.int64) + offset_ns
        tokens = [_floats(frame[name]) for name in ("prompt_tokens", "completion_tokens")]
        ok = (frame["status"] == "ok").to_numpy(dtype=bool)
    else:
        table = _csv(path, REQUEST_COLUMNS)
        sent_s, latency_s = _numbers(path, table, "timestamp"), _numbers(path, table, "latency")
        if np.isnan(sent_s).any():
            raise InputError(f"{path}: column timestamp has empty cells; write when each request was sent [unix s]")
        if np.any(latency_s < 0):
            raise InputError(f"{path}: column latency has negative values; write the seconds each request took")
        start_ns = np.round(sent_s * 1e9).astype(np.int64)
        end_ns = start_ns + np.round(np.nan_to_num(latency_s) * 1e9).astype(np.int64)
        tokens = [_numbers(path, table, name) for name in ("prompt_tokens", "completion_tokens")]
        ok = np.ones(len(table), dtype=bool)
        if "status" in table:
            ok = table["status"].astype(str).str.lower().isin(_WENT_WELL).to_numpy(dtype=bool)
    if not len(start_ns):
        raise InputError(f"{path}: holds no request")
    return pd.DataFrame(
        {"start_ns": start_ns, "end_ns": end_ns, "prompt_tokens": tokens[0], "completion_tokens": tokens[1], "ok": ok}
    )


def _is_parquet(path: Path) -> bool:
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"{path}: the name must end in .csv or .parquet")
    return path.suffix == ".parquet"


def _csv(path: Path, required: Sequence[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, skipinitialspace=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}") from error
    absent = [name for name in required if name not in table]
    if absent:
        raise InputError(
            f"{path}: lacks the column(s) {', '.join(absent)}; it has {', '.join(map(str, table.columns))}"
        )
    return table


def _numbers(path: Path, table: pd.DataFrame, column: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        values = pd.to_numeric(table[column]).to_numpy(dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: column {column} has something that is not a number: {error}") from error
    if np.isinf(values).any():
        raise InputError(f"{path}: column {column} has infinite values")
    return values


def _csv_grade(path: Path, table: pd.DataFrame) -> Grade:
    if "grade" not in table:
        return "sampled"
    given = set(table["grade"].dropna().astype(str))
    if not given or not given <= set(GRADES):
        raise InputError(f"{path}: column grade must hold one of {', '.join(GRADES)}; it has {sorted(given)}")
    return worst([grade for grade in GRADES_WORST_LAST if grade in given])


def _floats(column: "pd.Series[Any]") -> np.ndarray[Any, np.dtype[np.float64]]:
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _offset_ns(path: Path) -> int:
    """What is added to the file's monotonic times to make unix times."""
    anchor = read_metadata(path).get("clock_anchor")
    if not isinstance(anchor, dict) or not {"monotonic_ns", "unix_ns"} <= set(anchor):
        raise InputError(
            f"{path}: its metadata has no clock_anchor, so its times cannot be placed; was it written by us?"
        )
    return int(anchor["unix_ns"]) - int(anchor["monotonic_ns"])


def _shifted(channel: Channel, offset_ns: int) -> Channel:
    return replace(
        channel,
        times_ns=channel.times_ns + offset_ns,
        others={name: (times_ns + offset_ns, power_w) for name, (times_ns, power_w) in channel.others.items()},
        counter_times_ns=channel.counter_times_ns + offset_ns,
        empty_times_ns=channel.empty_times_ns + offset_ns,
        event_times_ns=channel.event_times_ns + offset_ns,
    )
