"""The windows that a fit can use: energy, time and tokens of each."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from inference_energy.analysis.figures import blocking_reasons
from inference_energy.analysis.idle import PHASE_TERMS
from inference_energy.analysis.integration import Values
from inference_energy.analysis.power_series import Correction
from inference_energy.analysis.uncertainty.budget import Budget, Term
from inference_energy.analysis.uncertainty.terms import NAME as EDGES
from inference_energy.contracts.documents.energy import EnergyDocument, EnergyWindow, ExcludedWindow, FitWindow
from inference_energy.contracts.documents.windows import LoadWindow, SteadyLoadDocument
from inference_energy.contracts.figure import Figure
from inference_energy.contracts.grades import Grade


@dataclass(frozen=True)
class Bins:
    """A window bin by bin: energy [J], uncached prompt tokens, and generated tokens; each of shape (bins,)."""

    energy_j: Values
    prompt_tokens: Values
    generated_tokens: Values


@dataclass(frozen=True)
class FitCell:
    """One window as the fit sees it.

    Attributes:
        name: name of the window, `<session>.<window>`.
        kind: `steady`, `prefill` or `decode`.
        duration_s: its length.
        prompt_tokens: prompt tokens that had to be computed: all less those from the prefix cache.
        generated_tokens: generated tokens.
        energy_total_j: total energy.
        energy_active_j: energy above cold idle; None without a cold idle.
        boundary, grade: boundary and grade of the energy.
        cached_known: whether the server told how many prompt tokens were cached; else all count as computed.
        bins: its course; None where it is not known.
        devices_j: energy of each device.
        corrections: correction of each device by a calibration; None where it has none.
        edges_u_j: standard uncertainty of the window's edges.
        cold_idle: terms of the idle that was subtracted [W]; windows with the same terms share that idle and its error.
    """

    name: str
    kind: str
    duration_s: float
    prompt_tokens: float
    generated_tokens: float
    energy_total_j: float
    energy_active_j: float | None
    boundary: str
    grade: Grade
    cached_known: bool = True
    bins: Bins | None = None
    devices_j: tuple[float, ...] = ()
    corrections: tuple[Correction | None, ...] = ()
    edges_u_j: float = 0.0
    cold_idle: tuple[Term, ...] = ()

    def record(self) -> FitWindow:
        """Return the window as the fit document holds it."""
        return FitWindow(
            cell=self.name,
            kind=self.kind,
            duration_s=self.duration_s,
            uncached_prompt_tokens=self.prompt_tokens,
            cached_tokens_known=self.cached_known,
            generated_tokens=self.generated_tokens,
            energy_total_j=self.energy_total_j,
            energy_active_j=self.energy_active_j,
        )


def gather_cells(
    sessions: Iterable[tuple[EnergyDocument, SteadyLoadDocument]],
) -> tuple[list[FitCell], list[ExcludedWindow]]:
    """Return the usable windows of some sessions, and the others with their reasons.

    Args:
        sessions: energy.json and steady_load.json of each session.
    """
    cells: list[FitCell] = []
    excluded: list[ExcludedWindow] = []
    for energy, steady in sessions:
        cold_terms = Budget.from_record(energy.idle.cold_power_w.budget).terms
        cold_idle = tuple(term for term in cold_terms if term.name in PHASE_TERMS)
        entries = energy.calibration.applied if energy.calibration else []
        corrections = {entry.name: Correction.from_entry(entry) for entry in entries}
        for name, window in energy.windows.items():
            cell = f"{energy.session}.{name}"
            load = steady.windows[name]
            total = window.figures["energy_total_j"]
            output, prompt = load.figures["output_tokens"], load.figures["prompt_tokens"]
            problems = list(
                dict.fromkeys([*blocking_reasons(total), *blocking_reasons(output), *blocking_reasons(prompt)])
            )
            if problems or total.value is None or output.value is None or prompt.value is None or total.value <= 0:
                excluded.append(ExcludedWindow(cell=cell, reasons=problems))
                continue
            devices = [device for device in window.devices if device.summed and device.energy_j]
            cells.append(
                FitCell(
                    name=cell,
                    kind=load.kind,
                    duration_s=load.duration_s,
                    prompt_tokens=prompt.value - load.counts.cached_tokens,
                    generated_tokens=output.value,
                    energy_total_j=total.value,
                    energy_active_j=window.figures["energy_active_j"].value,
                    boundary=total.boundary,
                    grade=total.grade,
                    cached_known=bool(load.counts.cached_tokens_known or not prompt.value),
                    bins=_bins(window, load),
                    devices_j=tuple(device.energy_j for device in devices if device.energy_j),
                    corrections=tuple(
                        corrections.get(device.calibration.name) if device.calibration else None for device in devices
                    ),
                    edges_u_j=_edges_u_j(total),
                    cold_idle=cold_idle,
                )
            )
    return cells, excluded


def _bins(window: EnergyWindow, load: LoadWindow) -> Bins | None:
    energy_j = window.bins.energy_total_j
    if energy_j is None:
        return None
    prompts = np.asarray(load.bins["prompt_tokens"], dtype=np.float64)
    return Bins(
        np.asarray(energy_j, dtype=np.float64),
        prompts - np.asarray(load.bins["cached_tokens"], dtype=np.float64),
        np.asarray(load.bins["output_tokens"], dtype=np.float64),
    )


def _edges_u_j(total: Figure) -> float:
    """Return the standard uncertainty of the window's edges [J]."""
    return math.hypot(*(term.u for term in Budget.from_record(total.budget).terms if term.name == EDGES))
