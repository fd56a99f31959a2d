"""Figures from a power log and a request log that come without a pipeline: the commands `log-power` and `analyze`.

Both logs may be CSV with unix times, or Parquet in the form of the contracts, whose monotonic times become unix times
by the clock anchor in the file's metadata. Readers return power series and a table of requests with times in unix ns.

The window of `analyze` begins with the first request that was sent and ends with the last one that ended; the power log
must cover it.

    total  = integral of power over the window
    active = total - P_idle T, with P_idle as the user states it

Without a pipeline nothing is known of steadiness and of other processes. The readings themselves are checked as in a
session's window.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from inference_energy.analysis.energy_per_unit import J_PER_KWH
from inference_energy.analysis.figures import blocking_reasons, make_figure, ratio, scaled
from inference_energy.analysis.integration import shortfall_s
from inference_energy.analysis.power_series import PowerKind, PowerSeries, boundary, grade, series_from_log, summed
from inference_energy.analysis.sensor_checks import (
    check_channel,
    lost_counter_reasons,
    usual_period_s,
    without_lost_counters,
)
from inference_energy.analysis.uncertainty.budget import merged, with_budget
from inference_energy.analysis.uncertainty.terms import corrections_of, scale_terms
from inference_energy.analysis.uncertainty.window import reading_terms
from inference_energy.analysis.windows import Window, align_to_readings
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts import power as power_contract
from inference_energy.contracts import requests as requests_contract
from inference_energy.contracts.documents.by_hand import LogAnalysisDocument, LogRequests, LogWindow
from inference_energy.contracts.documents.document import VERSION
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.grades import POWER_GRADES, Grade, weakest
from inference_energy.contracts.io import read_metadata, read_table
from inference_energy.contracts.reason_codes import blocking, reason
from inference_energy.errors import InputError

POWER_COLUMNS = ("time", "power_W", "gpu_util", "mem_used_bytes")
REQUEST_COLUMNS = ("timestamp", "prompt_tokens", "completion_tokens", "latency")

_OK_STATUSES = ("ok", "success", "200")
_BOUNDARY = {"nvml": "gpu", "rapl": "cpu_package and dram (rapl)", "modelled": "cpu (modelled)"}


def read_power_log(path: Path, reading: PowerKind) -> tuple[list[PowerSeries], str]:
    """Read the channels of a power log that add up, and their boundary in words.

    Args:
        path: CSV with `time` (unix s), `power_W` and, where known, `gpu_util`, `mem_used_bytes`, `grade` and `source`;
            or a power.parquet. Without a grade the power counts as sampled, without a
            source as GPU power.
        reading: the power reading of a Parquet log that is integrated.

    Raises:
        InputError: the file or a column is missing or cannot be used.
    """
    if _is_parquet(path):
        channels = summed(
            series_from_log(read_table(path, power_contract.SCHEMA), read_metadata(path).get("source"), reading)
        )
        if not channels:
            raise InputError(f"{path}: holds no power that can be added up")
        return [_shifted(channel, _offset_ns(path)) for channel in channels], boundary(channels)
    table = _csv(path, POWER_COLUMNS[:2])
    time_s, power_w = _numbers(path, table, "time"), _numbers(path, table, "power_W")
    complete = ~np.isnan(time_s) & ~np.isnan(power_w)
    times_ns = np.round(time_s[complete] * 1e9).astype(np.int64)
    order = np.argsort(times_ns, kind="stable")
    if not len(order):
        raise InputError(f"{path}: no row has both time and power_W")
    source = str(table["source"].iloc[0]) if "source" in table else ""
    no_times_ns, no_values = np.zeros(0, dtype=np.int64), np.zeros(0)
    channel = PowerSeries(
        source=source or str(path.name),
        device="all",
        domain="gpu",
        grade=_csv_grade(path, table),
        reading="average",
        times_ns=times_ns[order],
        power_w=power_w[complete][order],
        counter_times_ns=no_times_ns,
        counter_j=no_values,
        empty_times_ns=no_times_ns,
        event_times_ns=no_times_ns,
        event_bits=no_times_ns,
    )
    boundary_text = " + ".join(_BOUNDARY.get(part, part) for part in source.split("+")) if source else "gpu"
    return [channel], boundary_text


def read_request_log(path: Path) -> pd.DataFrame:
    """Read requests: `start_ns`, `end_ns`, `prompt_tokens`, `completion_tokens` (NaN where unknown) and `ok`.

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
            ok = table["status"].astype(str).str.lower().isin(_OK_STATUSES).to_numpy(dtype=bool)
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
    stated = set(table["grade"].dropna().astype(str))
    if not stated or not stated <= set(POWER_GRADES):
        raise InputError(f"{path}: column grade must hold one of {', '.join(POWER_GRADES)}; it has {sorted(stated)}")
    return weakest([grade for grade in POWER_GRADES if grade in stated])


def _floats(column: "pd.Series[Any]") -> np.ndarray[Any, np.dtype[np.float64]]:
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _offset_ns(path: Path) -> int:
    """Return the offset from the file's monotonic times to unix times."""
    anchor = read_metadata(path).get("clock_anchor")
    if not isinstance(anchor, dict) or not {"monotonic_ns", "unix_ns"} <= set(anchor):
        raise InputError(
            f"{path}: its metadata has no clock_anchor, so its times cannot be placed; was it written by us?"
        )
    return int(anchor["unix_ns"]) - int(anchor["monotonic_ns"])


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


def energy_between(
    logged: Sequence[PowerSeries],
    start_ns: int,
    end_ns: int,
    config: AnalysisConfig,
    *,
    boundary_text: str | None = None,
) -> Figure:
    """Return the energy of some channels between two times, in J; without a value where a check of the readings fails.

    Args:
        logged: the channels that add up.
        start_ns: start of the stretch.
        end_ns: end of the stretch.
        config: the limits, and the stated uncertainties of the sensors.
        boundary_text: the boundary of the channels; None takes it from the channels.
    """
    power = without_lost_counters(list(logged), start_ns, end_ns, 0.0, config)
    reasons = lost_counter_reasons(list(logged), power, start_ns, end_ns, 0.0, config)
    if not power:
        reasons.append(reason("no_power_source", "No channel that can be added up was logged."))
    for channel in power:
        reasons += check_channel(channel, start_ns, end_ns, 0.0, config)
    energies_j = {}
    if not blocking(reasons):
        energies_j = {channel.name: channel.energy_j(start_ns, end_ns) for channel in power}
    total = make_figure(
        sum(energies_j.values()) if energies_j else None,
        "J",
        boundary=boundary(power) if boundary_text is None else boundary_text,
        grade=grade(power),
        basis="total",
        reasons=reasons,
    )
    if total.value is None or total.grade == "modelled":
        return total
    terms = scale_terms(energies_j, (end_ns - start_ns) / 1e9, corrections_of(power), config.uncertainty)
    return with_budget(total, merged([*terms, *reading_terms(power, (start_ns, end_ns), 0.0)]))


def whole_log(logged: Sequence[PowerSeries], config: AnalysisConfig) -> dict[str, Figure]:
    """Return `duration_s`, `energy_total_j` and `power_mean_w` over the time that all channels of a log cover.

    Where a channel begins late or ends early, by more than the longest gap allowed, there is no energy: the others
    did not measure all that was used in that time.

    Args:
        logged: the channels that add up.
        config: the limits.
    """
    readable = [channel for channel in logged if len(channel.energy_times_ns) > 1]
    silent = [channel.name for channel in logged if len(channel.energy_times_ns) < 2]
    if not readable or silent:
        message = f"There are fewer than two readings of {', '.join(silent)}." if silent else "There is no power in it."
        return _figures(_missing(logged, reason("no_power_source", message)), 0.0)
    firsts_ns = [int(channel.energy_times_ns[0]) for channel in readable]
    lasts_ns = [int(channel.energy_times_ns[-1]) for channel in readable]
    for channel in readable:
        lacks_s = max(shortfall_s(channel.energy_times_ns, min(firsts_ns), max(lasts_ns)))
        if lacks_s > config.max_gap_periods * usual_period_s(channel, 0.0) + channel.half_averaging_time_s:
            cause = reason("power_not_covered", f"The readings of {channel.name} lack {lacks_s:.1f} s of the log.")
            return _figures(_missing(logged, cause), 0.0)
    # An average counts for half a second before it was read: up to there it can be compared with the counter.
    checks_ns = [channel.times_ns for channel in readable if channel.uses_counter and len(channel.times_ns)]
    start_ns = max(firsts_ns + [int(times_ns[0]) for times_ns in checks_ns])
    end_ns = min(lasts_ns + [int(times_ns[-1]) for times_ns in checks_ns])
    moved_ns = next((channel.counter_moved_ns for channel in readable if channel.uses_counter), None)
    if end_ns > start_ns and moved_ns is not None:
        window = align_to_readings(Window("log", start_ns, end_ns), moved_ns)
        start_ns, end_ns = window.start_ns, window.end_ns
    if end_ns <= start_ns:
        cause = reason("power_not_covered", "The log is too short: there is no time that all readings cover.")
        return _figures(_missing(logged, cause), 0.0)
    return _figures(energy_between(readable, start_ns, end_ns, config), (end_ns - start_ns) / 1e9)


def _missing(logged: Sequence[PowerSeries], cause: Reason) -> Figure:
    channels = list(logged)
    return make_figure(None, "J", boundary=boundary(channels), grade=grade(channels), basis="total", reasons=[cause])


def _figures(total: Figure, duration_s: float) -> dict[str, Figure]:
    mean = scaled(total, 1 / duration_s if duration_s else 1.0, "W")
    return {
        "duration_s": make_figure(duration_s, "s", boundary="window", grade="counted"),
        "energy_total_j": total,
        "power_mean_w": mean,
    }


def analyze_logs(
    power_log: Path, requests_log: Path, idle_power_w: float | None, config: AnalysisConfig
) -> LogAnalysisDocument:
    """Return the energy of a request log, in total, per token and per request.

    Args:
        power_log: CSV or Parquet, see `read_power_log`.
        requests_log: CSV or Parquet, see `read_request_log`.
        idle_power_w: idle power to subtract for active figures; None leaves them out.
        config: reading, largest gap and share of failed requests.

    Raises:
        InputError: a log cannot be used, or power was not logged over the whole window.
    """
    if idle_power_w is not None and not (np.isfinite(idle_power_w) and idle_power_w >= 0):
        raise InputError("--idle-power: write the idle power in W, 0 or more")
    power, boundary_text = read_power_log(power_log, config.power_reading)
    requests = read_request_log(requests_log)
    start_ns, end_ns = int(requests["start_ns"].min()), int(requests["end_ns"].max())
    if end_ns <= start_ns:
        raise InputError(f"{requests_log}: the requests span no time: timestamp and latency say that all took 0 s")
    _check_cover(power, power_log, start_ns, end_ns)
    figures = _log_figures(power, requests, (start_ns, end_ns), boundary_text, idle_power_w, config)
    duration_s = (end_ns - start_ns) / 1e9
    return LogAnalysisDocument(
        version=VERSION,
        power_log=power_log.name,
        requests_log=requests_log.name,
        window=LogWindow(start_unix_s=start_ns / 1e9, end_unix_s=end_ns / 1e9, duration_s=duration_s),
        requests=LogRequests(ok=int(requests["ok"].sum()), failed=int((~requests["ok"]).sum())),
        boundary=boundary_text,
        grade=grade(power),
        idle_power_w=idle_power_w,
        figures=figures,
    )


def _check_cover(power: list[PowerSeries], power_log: Path, start_ns: int, end_ns: int) -> None:
    for channel in power:
        before_s, after_s = shortfall_s(channel.energy_times_ns, start_ns, end_ns)
        if before_s or after_s:
            raise InputError(
                f"{power_log}: power was not logged over the whole request window: {before_s:.3f} s are missing at its "
                f"start and {after_s:.3f} s at its end; start logging before the first request and stop after the last"
            )


def _log_figures(
    power: list[PowerSeries],
    requests: pd.DataFrame,
    window: tuple[int, int],
    boundary_text: str,
    idle_power_w: float | None,
    config: AnalysisConfig,
) -> dict[str, Figure]:
    start_ns, end_ns = window
    duration_s = (end_ns - start_ns) / 1e9
    total = energy_between(power, start_ns, end_ns, config, boundary_text=boundary_text)
    active = _active(total, idle_power_w, duration_s)
    figures = {
        "duration_s": make_figure(duration_s, "s", boundary="window", grade="counted"),
        "power_mean_w": scaled(total, 1 / duration_s, "W"),
        "energy_total_j": total,
        "energy_active_j": active,
        "energy_total_kwh": scaled(total, 1 / J_PER_KWH, "kWh"),
        "energy_active_kwh": scaled(active, 1 / J_PER_KWH, "kWh"),
        **_counts(requests, config),
    }
    divisors = {
        "output_token": ("output_tokens", "J/token", "no_tokens", "No token was generated."),
        "prompt_token": ("prompt_tokens", "J/token", "no_tokens", "No prompt token was read."),
        "request": ("requests", "J/request", "no_requests", "No request ended well."),
    }
    for basis in ("total", "active"):
        for per, (count, unit, code, detail) in divisors.items():
            figures[f"energy_{basis}_per_{per}_j"] = ratio(
                figures[f"energy_{basis}_j"], figures[count], unit, code, detail
            )
    return figures


def _active(total: Figure, idle_power_w: float | None, duration_s: float) -> Figure:
    """Return the active energy, without interval: the idle power is stated by the user, its error is not known."""
    problems = [*blocking_reasons(total)]
    value = None
    if idle_power_w is None:
        problems.append(reason("cold_idle_missing", "No idle power was given: write --idle-power W."))
    elif total.value is not None:
        value = total.value - idle_power_w * duration_s
        if value < 0:
            problems.append(
                reason(
                    "below_idle",
                    f"The window took {total.value / duration_s:.4g} W on average, less than the idle power.",
                )
            )
    return make_figure(
        value,
        "J",
        boundary=total.boundary,
        grade=weakest([total.grade, "configured"]),
        basis="active",
        reasons=problems,
        notes=total.reasons,
    )


def _counts(requests: pd.DataFrame, config: AnalysisConfig) -> dict[str, Figure]:
    """Count the tokens of all requests, since failed ones used energy too, and the requests that ended well."""
    ok = requests["ok"]
    reasons = []
    failed = int((~ok).sum())
    if failed / len(requests) > config.max_failed_share:
        reasons.append(reason("failed_requests", f"{failed} of {len(requests)} requests failed."))

    def tokens(name: str) -> Figure:
        problems = list(reasons)
        unknown = int(requests.loc[ok, name].isna().sum())
        if unknown:
            problems.append(reason("token_counts_missing", f"{unknown} request(s) have no {name}."))
        return make_figure(float(requests[name].sum()), "token", boundary="client", grade="counted", reasons=problems)

    return {
        "output_tokens": tokens("completion_tokens"),
        "prompt_tokens": tokens("prompt_tokens"),
        "requests": make_figure(int(ok.sum()), "request", boundary="client", grade="counted", reasons=reasons),
    }
