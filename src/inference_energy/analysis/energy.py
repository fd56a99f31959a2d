"""Stage `integrate`: the energy of every window, and what was idle power.

    total    = energy over the window
    active   = total - P_cold   * T      (idle before the server started)
    marginal = total - P_loaded * T      (idle with the server up)

Energy is the difference of a hardware counter over the trimmed window where there is one, else the integral of power,
summed over the channels that do not overlap, each calibrated against a meter where the configuration names such a
calibration: idle powers and all that follows are too. Where an idle power is missing, so is what would subtract it.

An energy in J is that of this very window, so its interval holds what measuring leaves open. A power, or an energy per
token, stands for the load that the window is a sample of, so its interval also holds how much the window fluctuated.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from inference_energy.analysis.client_cost import client_energy
from inference_energy.analysis.figures import blocking_reasons, deduplicated, make_figure, reason, scaled
from inference_energy.analysis.idle import IdleKind, IdlePhase, IdlePower, idle_power, with_drift_note
from inference_energy.analysis.integration import Values
from inference_energy.analysis.meter_calibration import AppliedCalibration, choose_calibration, corrected
from inference_energy.analysis.power_series import (
    PowerKind,
    PowerSeries,
    boundary,
    boundary_note,
    grade,
    read_channels,
    summed,
)
from inference_energy.analysis.sensor_checks import (
    check_channel,
    counter_ratio,
    event_shares,
    lost_counter_reasons,
    others_reasons,
    without_lost_counters,
)
from inference_energy.analysis.session_facts import identity, read_session
from inference_energy.analysis.uncertainty.window import MeasuredWindow, intensities, with_intervals
from inference_energy.analysis.windows import bin_edges, phase_times
from inference_energy.config.analysis import EnergyConfig
from inference_energy.contracts import phases as phases_contract
from inference_energy.contracts.calibration import Calibrations
from inference_energy.contracts.figure import Basis, Figure, Reason
from inference_energy.contracts.grades import weakest
from inference_energy.contracts.io import read_json, read_table


def energy_of_session(
    *,
    session: Path,
    phases: Path,
    power: Path,
    idle: Path,
    idle_power: Path,
    steady: dict[str, Any],
    config: EnergyConfig,
    calibrations: Calibrations | None = None,
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
        calibrations: content of the file that `analysis.calibration` names; None without one.

    Returns:
        `boundary`, `boundary_note` (what is outside), `grade`, `calibration` (what was applied, None without one),
        `idle` (three figures), `idle_devices_w` (each channel's part of them) and `windows`: for each, `devices`,
        `client` (figures of the load client's own energy) and `figures`.

    Raises:
        InputError: a file cannot be used, or the calibration is of the virtual bench and the power not, or the reverse.
    """
    recorded = read_session(session)
    found = read_channels(power, config.power_reading)
    applied = choose_calibration(calibrations, summed(found), recorded["session"])
    found = corrected(found, applied.corrections)
    interval_s = float(recorded["power"]["interval_s"])
    why = recorded.get("missing") or {}
    phase_rows = read_table(phases, phases_contract.SCHEMA)
    phases_of: dict[IdleKind, IdlePhase] = {
        "cold": _cold_phase(idle, idle_power, applied, config),
        "loaded": IdlePhase(
            found,
            phase_times(phase_rows, "loaded_idle"),
            str(why.get("loaded_idle") or "the session had none"),
            recorded["power"],
        ),
        "post": IdlePhase(
            found,
            phase_times(phase_rows, "post_idle"),
            str(why.get("post_idle") or "the session had none"),
            recorded["power"],
        ),
    }
    idles = _idle_powers(phases_of, summed(found), interval_s, config)
    windows = {
        name: _window(
            window, found, idles, recorded=recorded["power"], notes=applied.notes, interval_s=interval_s, config=config
        )
        for name, window in steady["windows"].items()
    }
    return {
        "version": 1,
        **identity(recorded),
        "boundary": boundary(summed(found)),
        "boundary_note": boundary_note(summed(found), found),
        "grade": weakest(
            [grade(summed(found)), *(window["figures"]["energy_total_j"]["grade"] for window in windows.values())]
        ),
        "calibration": applied.record,
        "idle": {f"{kind}_power_w": power.figure.as_dict() for kind, power in idles.items()},
        "idle_devices_w": {kind: power.by_channel_w for kind, power in idles.items()},
        "windows": windows,
    }


def _cold_phase(idle: Path, idle_power_log: Path, applied: AppliedCalibration, config: EnergyConfig) -> IdlePhase:
    recorded = read_json(idle)
    if recorded.get("missing"):
        return IdlePhase([], None, str(recorded["missing"]))
    times_ns = (int(recorded["start_ns"]), int(recorded["end_ns"]))
    found = corrected(read_channels(idle_power_log, config.power_reading), applied.corrections)
    return IdlePhase(found, times_ns, "", dict(recorded.get("power") or {}))


def _idle_powers(
    phases_of: dict[IdleKind, IdlePhase], power: list[PowerSeries], interval_s: float, config: EnergyConfig
) -> dict[str, IdlePower]:
    found = {kind: idle_power(kind, phase, power, interval_s, config) for kind, phase in phases_of.items()}
    cold, post = with_drift_note(found["cold"].figure, found["post"].figure)
    return {
        "cold": replace(found["cold"], figure=cold),
        "loaded": found["loaded"],
        "post": replace(found["post"], figure=post),
    }


def _window(
    window: dict[str, Any],
    found: list[PowerSeries],
    idle: dict[str, IdlePower],
    *,
    recorded: dict[str, Any],
    notes: tuple[Reason, ...],
    interval_s: float,
    config: EnergyConfig,
) -> dict[str, Any]:
    start_ns, end_ns = int(window["start_ns"]), int(window["end_ns"])
    logged = summed(found)
    power = without_lost_counters(logged, start_ns, end_ns, interval_s, config)
    lost = lost_counter_reasons(logged, power, start_ns, end_ns, interval_s, config)
    found = [next((new for old, new in zip(logged, power, strict=True) if old is one), one) for one in found]
    reasons = [Reason(r["code"], r["detail"]) for r in window["reasons"]["energy"]]
    if not power:
        reasons.append(reason("no_power_source", "No channel that can be added up was logged."))
    for channel in power:
        reasons += check_channel(channel, start_ns, end_ns, interval_s, config)
    reasons += [*lost, *others_reasons(recorded, start_ns, end_ns), *notes]
    covered = bool(power) and all(channel.covers(start_ns, end_ns) for channel in power)
    energies_j = {channel.name: channel.energy_j(start_ns, end_ns) for channel in power} if covered else None
    bins_j = _bins(power, start_ns, end_ns) if covered else None
    figures = _energies(energies_j, window["duration_s"], power, idle, reasons)
    if energies_j is not None and bins_j is not None and grade(power) != "modelled":
        measured = MeasuredWindow(power, energies_j, bins_j, (start_ns, end_ns), interval_s)
        figures = with_intervals(figures, measured, idle, window, config.uncertainty)
    else:
        figures |= intensities(figures, window)
    chosen = {id(channel) for channel in power}
    client = client_energy(window.get("client"), power, start_ns, end_ns, figures["energy_total_j"])
    return {
        "kind": window["kind"],
        "start_ns": start_ns,
        "end_ns": end_ns,
        "devices": [_device(channel, start_ns, end_ns, id(channel) in chosen) for channel in found],
        "bins": {"energy_total_j": None if bins_j is None else bins_j.tolist()},
        "client": {name: figure.as_dict() for name, figure in client.items()},
        "figures": {name: figure.as_dict() for name, figure in figures.items()},
    }


def _bins(power: list[PowerSeries], start_ns: int, end_ns: int) -> Values:
    """Energy of all channels together in each bin of the window, in J."""
    edges_ns = bin_edges(start_ns, end_ns)
    return np.asarray(np.sum([channel.energies_j(edges_ns) for channel in power], axis=0), dtype=np.float64)


def _energies(
    energies_j: dict[str, float] | None,
    duration_s: float,
    power: list[PowerSeries],
    idle: dict[str, IdlePower],
    reasons: list[Reason],
) -> dict[str, Figure]:
    where, known = boundary(power), grade(power)
    total_j = None if energies_j is None else sum(energies_j.values())
    total = make_figure(total_j, "J", boundary=where, grade=known, basis="total", reasons=reasons)
    return {
        "duration_s": make_figure(duration_s, "s", boundary="window", grade="counted"),
        "power_mean_w": scaled(total, 1 / duration_s, "W"),
        "energy_total_j": total,
        "energy_active_j": _above_idle(total, idle["cold"].figure, duration_s, "active", "cold"),
        "energy_marginal_j": _above_idle(total, idle["loaded"].figure, duration_s, "marginal", "loaded"),
    }


def _above_idle(total: Figure, idle: Figure, duration_s: float, basis: Basis, kind: str) -> Figure:
    """E_total - P_idle T."""
    problems = [*blocking_reasons(total), *blocking_reasons(idle)]
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
    return make_figure(
        value,
        "J",
        boundary=total.boundary,
        grade=weakest([total.grade, idle.grade]),
        basis=basis,
        reasons=problems,
        notes=deduplicated((*total.reasons, *idle.reasons)),
    )


def _device(channel: PowerSeries, start_ns: int, end_ns: int, is_summed: bool) -> dict[str, Any]:
    covered = channel.covers(start_ns, end_ns)
    return {
        "device": channel.device,
        "domain": channel.domain,
        "source": channel.source,
        "grade": channel.grade,
        "reading": _reading(channel),
        "summed": is_summed,
        "energy_j": channel.energy_j(start_ns, end_ns) if covered else None,
        "calibration": _calibration(channel),
        "counter_energy_j": None if channel.grade == "modelled" else channel.counter_energy_j(start_ns, end_ns),
        "ratios": {
            name: counter_ratio(channel, name, start_ns, end_ns)
            for name in get_args(PowerKind)
            if channel.counter_j.size
        },
        "clocks_event_shares": event_shares(channel, start_ns, end_ns),
    }


def _calibration(channel: PowerSeries) -> dict[str, Any] | None:
    """What the energy was corrected by; the counter's and the ratios are the sensor's own."""
    own = channel.correction
    return None if own is None else {"name": own.entry, "gain": own.gain, "offset_w": own.offset_w}


def _reading(channel: PowerSeries) -> str | None:
    """What the energy was taken from; a model's energy is never called a counter's."""
    if channel.grade == "modelled":
        return "modelled"
    return "counter" if channel.counted else channel.reading
