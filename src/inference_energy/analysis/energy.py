"""Stage `integrate`: the energy of every window, and the idle powers.

    total    = energy over the window
    active   = total - P_cold   * T      (idle before the server started)
    marginal = total - P_loaded * T      (idle with the server up)

Energy is the rise of a hardware counter over the trimmed window where there is one, else the integral of power, summed
over the channels that do not overlap. Where the configuration names a calibration, each channel is calibrated against
its meter, in the idle powers too. Where an idle power is missing, so are the energies that subtract it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

from inference_energy.analysis.client_cost import client_energy
from inference_energy.analysis.energy_per_unit import energies_per_unit, window_counts
from inference_energy.analysis.figures import blocking_reasons, make_figure, scaled
from inference_energy.analysis.idle import IdleKind, IdlePhase, IdlePower, idle_power, with_drift_note
from inference_energy.analysis.integration import Values
from inference_energy.analysis.meter_calibration import AppliedCalibration, choose_calibration, corrected
from inference_energy.analysis.power_series import (
    PowerKind,
    PowerSeries,
    boundary,
    boundary_note,
    grade,
    read_power_series,
    summed,
)
from inference_energy.analysis.sensor_checks import (
    check_channel,
    counter_ratio,
    event_shares,
    lost_counter_reasons,
    other_process_reasons,
    without_lost_counters,
)
from inference_energy.analysis.session_facts import read_session, session_names
from inference_energy.analysis.uncertainty.window import MeasuredWindow
from inference_energy.analysis.windows import bin_edges, phase_times
from inference_energy.config.analysis import EnergyConfig
from inference_energy.contracts import phases as phases_contract
from inference_energy.contracts.calibration import Calibrations
from inference_energy.contracts.documents.document import read_document
from inference_energy.contracts.documents.energy import (
    AppliedCorrection,
    DeviceEnergy,
    EnergyBins,
    EnergyDocument,
    EnergyWindow,
    IdleDevices,
    IdlePowers,
)
from inference_energy.contracts.documents.session import IdleDocument, PowerLogRecord
from inference_energy.contracts.documents.windows import LoadWindow, SteadyLoadDocument
from inference_energy.contracts.figure import Basis, Figure, Reason
from inference_energy.contracts.grades import weakest
from inference_energy.contracts.io import read_table
from inference_energy.contracts.reason_codes import deduplicated, reason


def energy_of_session(
    *,
    session: Path,
    phases: Path,
    power: Path,
    idle: Path,
    idle_power: Path,
    steady: SteadyLoadDocument,
    config: EnergyConfig,
    calibrations: Calibrations | None = None,
) -> EnergyDocument:
    """Return energy.json of a session.

    Args:
        session: session.json.
        phases: phases.parquet.
        power: power.parquet.
        idle: idle.json of the server's cold idle.
        idle_power: power.parquet of the cold idle; not read where idle.json says that there was none.
        steady: steady_load.json of the session.
        config: reading, tolerances.
        calibrations: the file that `analysis.calibration` names; None without one.

    Raises:
        InputError: a file cannot be used, or the calibration is of the virtual bench and the power not, or the reverse.
    """
    recorded = read_session(session)
    channels = read_power_series(power, config.power_reading)
    calibration = choose_calibration(calibrations, summed(channels), recorded.session)
    channels = corrected(channels, calibration.corrections)
    interval_s = float(recorded.power.interval_s or 0.0)
    rows = read_table(phases, phases_contract.SCHEMA)

    def phase_of_session(name: str) -> IdlePhase:
        why = recorded.missing.get(name) or "the session had none"
        return IdlePhase(channels, phase_times(rows, name), why, recorded.power)

    idle_phases: dict[IdleKind, IdlePhase] = {
        "cold": _cold_phase(idle, idle_power, calibration, config),
        "loaded": phase_of_session("loaded_idle"),
        "post": phase_of_session("post_idle"),
    }
    idles = _idle_powers(idle_phases, summed(channels), interval_s, config)
    measured = _MeasuredSession(channels, idles, recorded.power, calibration.notes, interval_s, config)
    windows = {name: measured.window(window) for name, window in steady.windows.items()}
    return EnergyDocument(
        **session_names(recorded),
        boundary=boundary(summed(channels)),
        boundary_note=boundary_note(summed(channels), channels),
        grade=weakest(
            [grade(summed(channels)), *(window.figures["energy_total_j"].grade for window in windows.values())]
        ),
        calibration=calibration.record,
        idle=IdlePowers(
            cold_power_w=idles["cold"].figure,
            loaded_power_w=idles["loaded"].figure,
            post_power_w=idles["post"].figure,
        ),
        idle_devices_w=IdleDevices(
            cold=idles["cold"].by_channel_w, loaded=idles["loaded"].by_channel_w, post=idles["post"].by_channel_w
        ),
        windows=windows,
    )


def _cold_phase(idle: Path, idle_power_log: Path, calibration: AppliedCalibration, config: EnergyConfig) -> IdlePhase:
    recorded = read_document(idle, IdleDocument)
    if recorded.missing or recorded.start_ns is None or recorded.end_ns is None:
        return IdlePhase([], None, str(recorded.missing))
    channels = corrected(read_power_series(idle_power_log, config.power_reading), calibration.corrections)
    return IdlePhase(channels, (recorded.start_ns, recorded.end_ns), "", recorded.power)


def _idle_powers(
    phases: Mapping[IdleKind, IdlePhase], power: Sequence[PowerSeries], interval_s: float, config: EnergyConfig
) -> dict[IdleKind, IdlePower]:
    idles = {kind: idle_power(kind, phase, power, interval_s, config) for kind, phase in phases.items()}
    cold, post = with_drift_note(idles["cold"].figure, idles["post"].figure)
    return {
        "cold": replace(idles["cold"], figure=cold),
        "loaded": idles["loaded"],
        "post": replace(idles["post"], figure=post),
    }


@dataclass(frozen=True)
class _MeasuredSession:
    """The power of a session.

    Attributes:
        channels: all its channels, calibrated.
        idles: its idle powers.
        sampler_record: what the sampler counted.
        calibration_notes: notes on the calibration.
        interval_s: the sampling period that was asked for.
        config: reading, tolerances.
    """

    channels: list[PowerSeries]
    idles: dict[IdleKind, IdlePower]
    sampler_record: PowerLogRecord
    calibration_notes: tuple[Reason, ...]
    interval_s: float
    config: EnergyConfig

    def window(self, load: LoadWindow) -> EnergyWindow:
        """Return the energy of a window."""
        start_ns, end_ns = load.start_ns, load.end_ns
        logged = summed(self.channels)
        power = without_lost_counters(logged, start_ns, end_ns, self.interval_s, self.config)
        used = {channel.key: channel for channel in power}
        covered = bool(power) and all(channel.spans(start_ns, end_ns) for channel in power)
        energies_j = {channel.name: channel.energy_j(start_ns, end_ns) for channel in power} if covered else None
        bins_j = _energy_bins(power, start_ns, end_ns) if covered else None
        figures = _energies(energies_j, load.duration_s, power, self.idles, self._reasons(load, logged, power))
        counts = window_counts(load)
        if energies_j is not None and bins_j is not None and grade(power) != "modelled":
            measured = MeasuredWindow(
                power, energies_j, bins_j, (start_ns, end_ns), self.interval_s, self.idles, self.config.uncertainty
            )
            figures = measured.with_energy_budgets(figures)
            figures |= measured.with_unit_budgets(energies_per_unit(figures, counts), counts, load)
        else:
            figures |= energies_per_unit(figures, counts)
        return EnergyWindow(
            kind=load.kind,
            start_ns=start_ns,
            end_ns=end_ns,
            devices=[
                _device(used.get(channel.key, channel), start_ns, end_ns, channel.key in used)
                for channel in self.channels
            ],
            bins=EnergyBins(energy_total_j=None if bins_j is None else bins_j.tolist()),
            client=client_energy(load.client, power, start_ns, end_ns, figures["energy_total_j"]),
            figures=figures,
        )

    def _reasons(self, load: LoadWindow, logged: list[PowerSeries], power: list[PowerSeries]) -> list[Reason]:
        start_ns, end_ns = load.start_ns, load.end_ns
        reasons = list(load.reasons.energy)
        if not power:
            reasons.append(reason("no_power_source", "No channel that can be added up was logged."))
        for channel in power:
            reasons += check_channel(channel, start_ns, end_ns, self.interval_s, self.config)
        return [
            *reasons,
            *lost_counter_reasons(logged, power, start_ns, end_ns, self.interval_s, self.config),
            *other_process_reasons(self.sampler_record, start_ns, end_ns),
            *self.calibration_notes,
        ]


def _energy_bins(power: Sequence[PowerSeries], start_ns: int, end_ns: int) -> Values:
    """Return the energy of all channels together in each bin of the window [J]."""
    edges_ns = bin_edges(start_ns, end_ns)
    return np.asarray(np.sum([channel.energies_j(edges_ns) for channel in power], axis=0), dtype=np.float64)


def _energies(
    energies_j: Mapping[str, float] | None,
    duration_s: float,
    power: Sequence[PowerSeries],
    idles: Mapping[IdleKind, IdlePower],
    reasons: list[Reason],
) -> dict[str, Figure]:
    total = make_figure(
        None if energies_j is None else sum(energies_j.values()),
        "J",
        boundary=boundary(power),
        grade=grade(power),
        basis="total",
        reasons=reasons,
    )
    return {
        "duration_s": make_figure(duration_s, "s", boundary="window", grade="counted"),
        "power_mean_w": scaled(total, 1 / duration_s, "W"),
        "energy_total_j": total,
        "energy_active_j": _above_idle(total, idles["cold"].figure, duration_s, "active", "cold"),
        "energy_marginal_j": _above_idle(total, idles["loaded"].figure, duration_s, "marginal", "loaded"),
    }


def _above_idle(total: Figure, idle: Figure, duration_s: float, basis: Basis, kind: IdleKind) -> Figure:
    """Return E_total - P_idle T."""
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


def _device(channel: PowerSeries, start_ns: int, end_ns: int, is_summed: bool) -> DeviceEnergy:
    correction = channel.correction
    return DeviceEnergy(
        device=channel.device,
        domain=channel.domain,
        source=channel.source,
        grade=channel.grade,
        reading=_energy_source(channel),
        summed=is_summed,
        energy_j=channel.energy_j(start_ns, end_ns) if channel.spans(start_ns, end_ns) else None,
        calibration=None
        if correction is None
        else AppliedCorrection(name=correction.entry, gain=correction.gain, offset_w=correction.offset_w),
        counter_energy_j=None if channel.grade == "modelled" else channel.counter_energy_j(start_ns, end_ns),
        ratios={
            name: counter_ratio(channel, name, start_ns, end_ns)
            for name in get_args(PowerKind)
            if channel.counter_j.size
        },
        clocks_event_shares=event_shares(channel, start_ns, end_ns),
    )


def _energy_source(channel: PowerSeries) -> str | None:
    """Return what the energy was taken from; a model's energy is never called a counter's."""
    if channel.grade == "modelled":
        return "modelled"
    return "counter" if channel.uses_counter else channel.reading
