"""Stage `integrate`: the energy of every window, and what was idle power.

    total    = energy over the window
    active   = total - P_cold   * T      (idle before the server started)
    marginal = total - P_loaded * T      (idle with the server up)

Energy is the integral of power (or the difference of a counter) over the trimmed window, summed over the channels that
do not overlap. Where an idle power is missing, so is what would subtract it.
"""

from pathlib import Path
from typing import Any

from inference_energy.analysis.channels import Channel, boundary, boundary_note, grade, read_channels, summed
from inference_energy.analysis.figures import invalid, load_figure, ratio, times
from inference_energy.analysis.idle import IdleKind, IdlePhase, idle_power, with_drift_note
from inference_energy.analysis.recorded import identity, read_session
from inference_energy.analysis.sensor_checks import check_channel, counter_ratio, event_shares
from inference_energy.analysis.validity import judged, reason, unique
from inference_energy.analysis.windows import phase_times
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts import phases as phases_contract
from inference_energy.contracts.figure import Basis, Figure, Reason, worst
from inference_energy.contracts.tables import read_json, read_table

J_PER_KWH = 3.6e6


def integrate_session(
    *,
    session: Path,
    phases: Path,
    power: Path,
    idle: Path,
    idle_power: Path,
    steady: dict[str, Any],
    config: AnalysisConfig,
) -> dict[str, Any]:
    """energy.json of a session.

    Args:
        session: session.json.
        phases: phases.parquet.
        power: power.parquet.
        idle: idle.json of the server's cold idle.
        idle_power: power.parquet of the cold idle; not read where idle.json says that there was none.
        steady: its steady_load.json.
        config: reading, tolerances.

    Returns:
        `boundary`, `boundary_note` (what is outside), `grade`, `idle` (three figures) and `windows`: for each,
        `devices` and `figures`.
    """
    recorded = read_session(session)
    found = read_channels(power, config.power_reading)
    interval_s = float(recorded["power"]["interval_s"])
    why = recorded.get("missing") or {}
    phase_rows = read_table(phases, phases_contract.SCHEMA)
    phases_of: dict[IdleKind, IdlePhase] = {
        "cold": _cold_phase(idle, idle_power, config),
        "loaded": IdlePhase(
            found, phase_times(phase_rows, "loaded_idle"), str(why.get("loaded_idle") or "the session had none")
        ),
        "post": IdlePhase(
            found, phase_times(phase_rows, "post_idle"), str(why.get("post_idle") or "the session had none")
        ),
    }
    idles = _idle_powers(phases_of, summed(found), interval_s * config.max_gap_periods)
    windows = {
        name: _window(window, found, idles, interval_s=interval_s, config=config)
        for name, window in steady["windows"].items()
    }
    return {
        "version": 1,
        **identity(recorded),
        "boundary": boundary(summed(found)),
        "boundary_note": boundary_note(summed(found)),
        "grade": grade(summed(found)),
        "idle": {f"{kind}_power_w": figure.as_dict() for kind, figure in idles.items()},
        "windows": windows,
    }


def _cold_phase(idle: Path, idle_power_log: Path, config: AnalysisConfig) -> IdlePhase:
    recorded = read_json(idle)
    if recorded.get("missing"):
        return IdlePhase([], None, str(recorded["missing"]))
    times_ns = (int(recorded["start_ns"]), int(recorded["end_ns"]))
    return IdlePhase(read_channels(idle_power_log, config.power_reading), times_ns, "")


def _idle_powers(phases_of: dict[IdleKind, IdlePhase], power: list[Channel], slack_s: float) -> dict[str, Figure]:
    figures = {kind: idle_power(kind, phase, power, slack_s) for kind, phase in phases_of.items()}
    cold, post = with_drift_note(figures["cold"], figures["post"])
    return {"cold": cold, "loaded": figures["loaded"], "post": post}


def _window(
    window: dict[str, Any],
    found: list[Channel],
    idle: dict[str, Figure],
    *,
    interval_s: float,
    config: AnalysisConfig,
) -> dict[str, Any]:
    power = summed(found)
    start_ns, end_ns = int(window["start_ns"]), int(window["end_ns"])
    reasons = [Reason(r["code"], r["detail"]) for r in window["reasons"]["energy"]]
    if not power:
        reasons.append(reason("no_power_source", "No channel that can be added up was logged."))
    for channel in power:
        reasons += check_channel(channel, start_ns, end_ns, interval_s, config)
    covered = bool(power) and all(channel.covers(start_ns, end_ns) for channel in power)
    total_j = sum(channel.energy_j(start_ns, end_ns) for channel in power) if covered else None
    figures = _energies(total_j, window["duration_s"], power, idle, reasons)
    figures |= _intensities(figures, window)
    chosen = {id(channel) for channel in power}
    return {
        "kind": window["kind"],
        "start_ns": start_ns,
        "end_ns": end_ns,
        "devices": [_device(channel, start_ns, end_ns, id(channel) in chosen) for channel in found],
        "figures": {name: figure.as_dict() for name, figure in figures.items()},
    }


def _energies(
    total_j: float | None, duration_s: float, power: list[Channel], idle: dict[str, Figure], reasons: list[Reason]
) -> dict[str, Figure]:
    where, known = boundary(power), grade(power)
    total = judged(total_j, "J", boundary=where, grade=known, basis="total", reasons=reasons)
    figures = {
        "duration_s": judged(duration_s, "s", boundary="window", grade="counted"),
        "power_mean_w": times(total, 1 / duration_s, "W"),
        "energy_total_j": total,
        "energy_active_j": _above_idle(total, idle["cold"], duration_s, "active", "cold"),
        "energy_marginal_j": _above_idle(total, idle["loaded"], duration_s, "marginal", "loaded"),
    }
    for basis in ("total", "active", "marginal"):
        figures[f"energy_{basis}_kwh"] = times(figures[f"energy_{basis}_j"], 1 / J_PER_KWH, "kWh")
    return figures


def _above_idle(total: Figure, idle: Figure, duration_s: float, basis: Basis, kind: str) -> Figure:
    """E_total - P_idle T."""
    problems = [*invalid(total), *invalid(idle)]
    value = None
    if total.value is not None and idle.value is not None:
        value = total.value - idle.value * duration_s
        if value < 0:
            problems.append(
                reason(
                    "below_idle",
                    f"The window took {total.value / duration_s:.4g} W, less than the {kind} idle, {idle.value:.4g} W.",
                )
            )
    return judged(
        value,
        "J",
        boundary=total.boundary,
        grade=worst([total.grade, idle.grade]),
        basis=basis,
        reasons=problems,
        notes=unique((*total.reasons, *idle.reasons)),
    )


def _intensities(energies: dict[str, Figure], window: dict[str, Any]) -> dict[str, Figure]:
    """Energy per generated token, per prompt token and per request, on each basis."""
    counts = {name: load_figure(window["figures"][name]) for name in ("output_tokens", "prompt_tokens", "requests")}
    failed = [Reason(r["code"], r["detail"]) for r in window["reasons"]["tokens"] if r["code"] == "failed_requests"]
    finished = counts["requests"]
    if failed and finished.valid:
        counts["requests"] = judged(None, "request", boundary="client", grade="counted", reasons=failed)
    divisors = {
        "output_token": (counts["output_tokens"], "J/token", "no_tokens", "No token was generated in the window."),
        "prompt_token": (counts["prompt_tokens"], "J/token", "no_tokens", "No prompt was read in the window."),
        "request": (counts["requests"], "J/request", "no_requests", "No request finished in the window."),
    }
    return {
        f"energy_{basis}_per_{per}_j": ratio(energies[f"energy_{basis}_j"], divisor, unit, code, detail)
        for basis in ("total", "active", "marginal")
        for per, (divisor, unit, code, detail) in divisors.items()
    }


def _device(channel: Channel, start_ns: int, end_ns: int, is_summed: bool) -> dict[str, Any]:
    covered = channel.covers(start_ns, end_ns)
    return {
        "device": channel.device,
        "domain": channel.domain,
        "source": channel.source,
        "grade": channel.grade,
        "reading": channel.reading or "counter",
        "summed": is_summed,
        "energy_j": channel.energy_j(start_ns, end_ns) if covered else None,
        "counter_energy_j": channel.counter_energy_j(start_ns, end_ns),
        "ratio": counter_ratio(channel, start_ns, end_ns),
        "clocks_event_shares": event_shares(channel, start_ns, end_ns),
    }
