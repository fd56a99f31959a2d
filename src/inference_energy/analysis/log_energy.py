"""Figures from a power log and a request log that come without a pipeline: the commands `log-power` and `analyze`.

The window of `analyze` begins with the first request that was sent and ends with the last one that ended. The power log
must cover it; up to one sampling period at an end, its nearest reading is held.

    total  = integral of power over the window
    active = total - P_idle T, with P_idle as the user states it

Without a pipeline nothing is known of steadiness and of other processes. The readings themselves are checked as in a
session's window.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from inference_energy.analysis.csv_log import Clock, utc_text
from inference_energy.analysis.energy_per_unit import J_PER_KWH
from inference_energy.analysis.figures import blocking_reasons, make_figure, ratio, scaled
from inference_energy.analysis.implausible_readings import withheld_reasons
from inference_energy.analysis.integration import shortfall_s
from inference_energy.analysis.power_log_file import read_power_log
from inference_energy.analysis.power_series import PowerSeries, boundary, grade
from inference_energy.analysis.request_log_file import read_request_log
from inference_energy.analysis.sensor_checks import (
    check_channel,
    lost_counter_reasons,
    usual_period_s,
    without_lost_counters,
)
from inference_energy.analysis.uncertainty.budget import Budget, Term, merged, with_budget
from inference_energy.analysis.uncertainty.terms import corrections_of, scale_terms
from inference_energy.analysis.uncertainty.window import reading_terms
from inference_energy.analysis.windows import Window, align_to_readings
from inference_energy.config.analysis import AnalysisConfig, Uncertainty
from inference_energy.contracts.documents.by_hand import LogAnalysisDocument, LogRequests, LogWindow
from inference_energy.contracts.documents.document import VERSION
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.grades import weakest
from inference_energy.contracts.reason_codes import blocking, reason
from inference_energy.errors import InputError


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


_ALWAYS = (np.iinfo(np.int64).min, np.iinfo(np.int64).max)


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
        withheld = [why for channel in logged for why in withheld_reasons(channel, *_ALWAYS)]
        return _figures(_missing(logged, *withheld, reason("no_power_source", message)), 0.0)
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


def _missing(logged: Sequence[PowerSeries], *causes: Reason) -> Figure:
    channels = list(logged)
    return make_figure(None, "J", boundary=boundary(channels), grade=grade(channels), basis="total", reasons=causes)


def _figures(total: Figure, duration_s: float) -> dict[str, Figure]:
    mean = scaled(total, 1 / duration_s if duration_s else 1.0, "W")
    return {
        "duration_s": make_figure(duration_s, "s", boundary="window", grade="counted"),
        "energy_total_j": total,
        "power_mean_w": mean,
    }


def analyze_logs(
    power_log: Path,
    requests_log: Path,
    idle_power_w: float | None,
    config: AnalysisConfig,
    *,
    stated_boundary: str | None = None,
    sensor_gain: float | None = None,
    zone: tzinfo | None = None,
) -> LogAnalysisDocument:
    """Return the energy of a request log, in total, per token and per request.

    Args:
        power_log: CSV or Parquet, see `read_power_log`.
        requests_log: CSV or Parquet, see `read_request_log`.
        idle_power_w: idle power to subtract for active figures; None leaves them out.
        config: reading, largest gap and share of failed requests.
        stated_boundary: the parts whose power was logged, as the user states them; None takes them from the log.
        sensor_gain: relative standard uncertainty of the sensor, as the user states it.
        zone: zone of times that state none.

    Raises:
        InputError: a log cannot be used, or power was not logged over the whole window.
    """
    if idle_power_w is not None and not (np.isfinite(idle_power_w) and idle_power_w >= 0):
        raise InputError("--idle-power: write the idle power in W, 0 or more")
    log = read_power_log(power_log, config.power_reading, stated_boundary=stated_boundary, zone=zone)
    requests = read_request_log(requests_log, zone)
    _check_clocks(power_log, log.clock, requests_log, requests.clock)
    frame = requests.frame
    start_ns, end_ns = int(frame["start_ns"].min()), int(frame["end_ns"].max())
    if end_ns <= start_ns:
        raise InputError(f"{requests_log}: the requests span no time: timestamp and latency say that all took 0 s")
    held = [hold_edges(channel, start_ns, end_ns) for channel in log.channels]
    power = [edges.channel for edges in held]
    _check_cover(power, power_log, start_ns, end_ns, log.clock)
    _check_period(power, power_log, (end_ns - start_ns) / 1e9, log.clock)
    if sensor_gain is not None:
        stated = Uncertainty(gain=sensor_gain, offset_w=0.0, meter_gain=config.uncertainty.meter_gain)
        config = config.model_copy(update={"uncertainty": stated})
    total = energy_between(power, start_ns, end_ns, config, boundary_text=log.boundary)
    total = _with_held_edges(total, held)
    known = log.sensor_error_known or sensor_gain is not None
    if not known and total.grade != "modelled":
        total = _without_interval(total, log.boundary)
    figures = _log_figures(total, frame, (end_ns - start_ns) / 1e9, idle_power_w, config)
    return LogAnalysisDocument(
        version=VERSION,
        power_log=power_log.name,
        requests_log=requests_log.name,
        window=LogWindow(start_unix_s=start_ns / 1e9, end_unix_s=end_ns / 1e9, duration_s=(end_ns - start_ns) / 1e9),
        requests=LogRequests(ok=int(frame["ok"].sum()), failed=int((~frame["ok"]).sum())),
        boundary=log.boundary,
        grade=grade(power),
        idle_power_w=idle_power_w,
        uncertainty=_uncertainty_text(config.uncertainty, known=known, is_modelled=total.grade == "modelled"),
        assumptions=[*log.assumptions, *requests.assumptions, *_CLOCK_ASSUMPTIONS[log.clock]],
        figures=figures,
    )


_CLOCK_ASSUMPTIONS: dict[Clock, list[str]] = {
    "unix": [],
    "local": ["times state no zone, so both logs are of one zone"],
    "relative": ["times count from a start that is not stated, so both logs began together"],
}


@dataclass(frozen=True)
class HeldEdges:
    """A channel whose first and last readings are held to the edges of a window.

    Attributes:
        channel: the channel, which covers the window if its readings end near enough.
        held_s: the time over which readings were held.
        u_j: standard uncertainty of the energy in that time [J].
    """

    channel: PowerSeries
    held_s: float
    u_j: float


def hold_edges(channel: PowerSeries, start_ns: int, end_ns: int) -> HeldEdges:
    """Hold the first and last reading to the edges of a window, over up to one sampling period at each.

    An average counts up to the time when it was read, so its readings may be held for half of the averaging time more.
    The power in the held time is that of the nearest reading, with the scatter of the readings in the window as the
    half-width of a rectangular distribution: u = spread * held_s / sqrt(3), as for holes.

    Args:
        channel: the readings.
        start_ns: start of the window.
        end_ns: end of the window.
    """
    times_ns = channel.energy_times_ns
    if len(times_ns) < 2:
        return HeldEdges(channel, 0.0, 0.0)
    before_s, after_s = shortfall_s(times_ns, start_ns, end_ns)
    most_s = usual_period_s(channel, 0.0) + channel.reading_delay_s
    before_s, after_s = (lack_s if lack_s <= most_s else 0.0 for lack_s in (before_s, after_s))
    if not before_s and not after_s:
        return HeldEdges(channel, 0.0, 0.0)
    counter_w = np.diff(channel.counter_j) / np.maximum(np.diff(channel.counter_times_ns) / 1e9, 1e-9)
    edges_w = counter_w if channel.uses_counter else channel.power_w
    new_ns, new_values = list(times_ns), list(channel.counter_j if channel.uses_counter else channel.power_w)
    if before_s:
        new_ns.insert(0, start_ns)
        new_values.insert(0, new_values[0] - (edges_w[0] * before_s if channel.uses_counter else 0.0))
    if after_s:
        new_ns.append(end_ns)
        new_values.append(new_values[-1] + (edges_w[-1] * after_s if channel.uses_counter else 0.0))
    times, values = np.array(new_ns, dtype=np.int64), np.array(new_values, dtype=np.float64)
    if channel.uses_counter:
        extended = replace(channel, counter_times_ns=times, counter_j=values)
    else:
        extended = replace(channel, times_ns=times, power_w=values)
    u_j = float(np.std(edges_w)) * float(np.hypot(before_s, after_s)) / np.sqrt(3)
    return HeldEdges(extended, before_s + after_s, abs(channel.gain) * u_j)


def _with_held_edges(total: Figure, held: Sequence[HeldEdges]) -> Figure:
    """Return the energy with a note on held readings, and their term in its budget."""
    parts = [edges for edges in held if edges.held_s]
    if total.value is None or not parts:
        return total
    longest = max(parts, key=lambda edges: edges.held_s)
    note = reason(
        "edge_held",
        f"The readings of {longest.channel.name} lack {longest.held_s:.3g} s at the edges of the window; the nearest "
        "was held.",
    )
    total = msgspec.structs.replace(total, reasons=(*total.reasons, note))
    if total.budget is None:
        return total
    u_j = float(np.sqrt(sum(edges.u_j**2 for edges in parts)))
    held_term = Term("held edges", "B", u_j, float("inf"), "spread of the readings over the time that one was held")
    return with_budget(total, [*Budget.from_record(total.budget).terms, held_term])


def _without_interval(total: Figure, boundary_text: str) -> Figure:
    """Return the energy without interval: the error of the sensor, the largest term by far, is not known."""
    if total.value is None:
        return total
    note = reason(
        "sensor_error_unknown",
        f"Nothing states the error of a sensor with the boundary {boundary_text}: write --sensor-gain, and --boundary "
        "if it is of a GPU or CPU.",
    )
    return msgspec.structs.replace(total, reasons=(*total.reasons, note), interval_95=None, budget=None)


def _uncertainty_text(uncertainty: Uncertainty, *, known: bool, is_modelled: bool) -> str:
    """Return in words what is taken as the error of the sensor."""
    if is_modelled:
        return "not known, because power is modelled"
    if not known:
        return "not known, because the error of the sensor is not stated"
    offset = f", offset {uncertainty.offset_w:g} W of each device" if uncertainty.offset_w else ""
    return (
        f"standard uncertainty of the sensor: gain {100 * uncertainty.gain:.3g} %{offset}; no interval for active "
        "figures (nothing states the error of the idle power) and per token or request (nothing tells how much the "
        "load fluctuates)"
    )


def _check_clocks(power_log: Path, power: Clock, requests_log: Path, requests: Clock) -> None:
    words = {"unix": "Unix time", "local": "times without a zone", "relative": "times since a start"}
    if power == requests:
        return
    remedy = "state the zone with --timezone" if "relative" not in (power, requests) else "log both by one clock"
    raise InputError(
        f"{power_log} has {words[power]}, but {requests_log} {words[requests]}, so one cannot be placed in the other; "
        f"{remedy}"
    )


def _check_cover(power: list[PowerSeries], power_log: Path, start_ns: int, end_ns: int, clock: Clock) -> None:
    for channel in power:
        before_s, after_s = shortfall_s(channel.energy_times_ns, start_ns, end_ns)
        if (not before_s and not after_s) or channel.withheld:
            continue  # of readings that cannot be, the figure tells
        length_s = (end_ns - start_ns) / 1e9
        of = f" of {channel.name}" if len(power) > 1 else ""
        if max(before_s, after_s) >= length_s and len(channel.energy_times_ns):
            first_ns, last_ns = int(channel.energy_times_ns[0]), int(channel.energy_times_ns[-1])
            spans = [
                f"{utc_text(a)} to {utc_text(b)}" if clock == "unix" else f"{a / 1e9:.3f} to {b / 1e9:.3f} s"
                for a, b in ((first_ns, last_ns), (start_ns, end_ns))
            ]
            raise InputError(
                f"{power_log}: power{of} was logged at another time than the requests: from {spans[0]}, and the "
                f"requests from {spans[1]}; are both by one clock?"
            )
        raise InputError(
            f"{power_log}: power{of} was not logged over the whole request window: {before_s:.3f} s are missing at its "
            f"start and {after_s:.3f} s at its end; start logging before the first request and stop after the last"
        )


def _check_period(power: list[PowerSeries], power_log: Path, length_s: float, clock: Clock) -> None:
    """Refuse readings that are further apart than the window is long: nothing in it was measured."""
    for channel in power:
        period_s = usual_period_s(channel, 0.0)
        if period_s > length_s:
            remedy = "are times in ms? Write their unit in the name: time_ms" if clock == "relative" else "log faster"
            raise InputError(
                f"{power_log}: the readings of {channel.name} are {period_s:.4g} s apart, further than the "
                f"{length_s:.4g} s of all requests; {remedy}"
            )


def _log_figures(
    total: Figure, requests: pd.DataFrame, duration_s: float, idle_power_w: float | None, config: AnalysisConfig
) -> dict[str, Figure]:
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
