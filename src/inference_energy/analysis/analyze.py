"""`analyze`: figures from one power log and one request log, without a pipeline.

The window is from the first request sent to the last one ended, and the power log must cover it.

    total  = integral of power over the window
    active = total - P_idle T, with P_idle as the user states it
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from inference_energy.analysis.channels import Channel, grade
from inference_energy.analysis.figures import invalid, ratio, times
from inference_energy.analysis.logs import read_power_log, read_request_log
from inference_energy.analysis.stretch import energy_between
from inference_energy.analysis.trapezoid import shortfall_s
from inference_energy.analysis.validity import judged, reason
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts.figure import Figure, worst
from inference_energy.errors import InputError

J_PER_KWH = 3.6e6


def analyze(power_log: Path, requests_log: Path, idle_power_w: float | None, config: AnalysisConfig) -> dict[str, Any]:
    """Energy of a request log, and energy per token and per request.

    Args:
        power_log: CSV or Parquet, see `logs.read_power_log`.
        requests_log: CSV or Parquet, see `logs.read_request_log`.
        idle_power_w: idle power to subtract for active figures; None leaves them out.
        config: reading, largest gap and share of failed requests.

    Returns:
        `window` (unix s), `requests`, `boundary`, `grade`, `idle_power_w` and `figures`.

    Raises:
        InputError: a log cannot be used, or power was not logged over the whole window.
    """
    if idle_power_w is not None and not (np.isfinite(idle_power_w) and idle_power_w >= 0):
        raise InputError("--idle-power: write the idle power in W, 0 or more")
    found, boundary = read_power_log(power_log, config.power_reading)
    requests = read_request_log(requests_log)
    start_ns, end_ns = int(requests["start_ns"].min()), int(requests["end_ns"].max())
    if end_ns <= start_ns:
        raise InputError(f"{requests_log}: the requests span no time: timestamp and latency say that all took 0 s")
    _check_cover(found, power_log, start_ns, end_ns)
    figures = _figures(found, requests, (start_ns, end_ns), boundary, idle_power_w, config)
    return {
        "version": 1,
        "power_log": power_log.name,
        "requests_log": requests_log.name,
        "window": {"start_unix_s": start_ns / 1e9, "end_unix_s": end_ns / 1e9, "duration_s": (end_ns - start_ns) / 1e9},
        "requests": {"ok": int(requests["ok"].sum()), "failed": int((~requests["ok"]).sum())},
        "boundary": boundary,
        "grade": grade(found),
        "idle_power_w": idle_power_w,
        "figures": {name: figure.as_dict() for name, figure in figures.items()},
    }


def _check_cover(found: list[Channel], power_log: Path, start_ns: int, end_ns: int) -> None:
    for channel in found:
        before_s, after_s = shortfall_s(channel.main_times_ns(), start_ns, end_ns)
        if before_s or after_s:
            raise InputError(
                f"{power_log}: power was not logged over the whole request window: {before_s:.3f} s are missing at its "
                f"start and {after_s:.3f} s at its end; start logging before the first request and stop after the last"
            )


def _figures(
    found: list[Channel],
    requests: pd.DataFrame,
    window: tuple[int, int],
    boundary: str,
    idle_power_w: float | None,
    config: AnalysisConfig,
) -> dict[str, Figure]:
    start_ns, end_ns = window
    duration_s = (end_ns - start_ns) / 1e9
    total = energy_between(found, start_ns, end_ns, config, inside=boundary)
    active = _active(total, idle_power_w, duration_s)
    figures = {
        "duration_s": judged(duration_s, "s", boundary="window", grade="counted"),
        "power_mean_w": times(total, 1 / duration_s, "W"),
        "energy_total_j": total,
        "energy_active_j": active,
        "energy_total_kwh": times(total, 1 / J_PER_KWH, "kWh"),
        "energy_active_kwh": times(active, 1 / J_PER_KWH, "kWh"),
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
    """The idle power is the user's own statement, so what it may be off by is not known and there is no interval."""
    problems = [*invalid(total)]
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
    return judged(
        value,
        "J",
        boundary=total.boundary,
        grade=worst([total.grade, "configured"]),
        basis="active",
        reasons=problems,
        notes=total.reasons,
    )


def _counts(requests: pd.DataFrame, config: AnalysisConfig) -> dict[str, Figure]:
    """Tokens of all requests, also of failed ones, whose energy was spent too; requests that ended well."""
    ok = requests["ok"]
    reasons = []
    failed = int((~ok).sum())
    if failed / len(requests) > config.max_failed_share:
        reasons.append(reason("failed_requests", f"{failed} of {len(requests)} requests failed."))

    def tokens(name: str) -> Figure:
        against = list(reasons)
        unknown = int(requests.loc[ok, name].isna().sum())
        if unknown:
            against.append(reason("token_counts_missing", f"{unknown} request(s) have no {name}."))
        return judged(float(requests[name].sum()), "token", boundary="client", grade="counted", reasons=against)

    return {
        "output_tokens": tokens("completion_tokens"),
        "prompt_tokens": tokens("prompt_tokens"),
        "requests": judged(int(ok.sum()), "request", boundary="client", grade="counted", reasons=reasons),
    }
