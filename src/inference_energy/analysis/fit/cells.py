"""The windows that a fit can use: energy, time and tokens of each."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from inference_energy.analysis.figures import blocking_reasons, figure_from_dict
from inference_energy.analysis.idle import OWN_TERMS
from inference_energy.analysis.integration import Values
from inference_energy.analysis.power_series import Correction
from inference_energy.analysis.uncertainty.budget import Budget, Term
from inference_energy.analysis.uncertainty.terms import NAME as EDGES
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.grades import Grade


@dataclass(frozen=True)
class FitCell:
    """One window as the fit sees it.

    `prompt_tokens` are those that had to be computed: prompt tokens minus those from the prefix cache. Where the server
    did not say how many these were, `cached_known` is false and all count. `energy_active_j` is None without a cold
    idle. `bins` hold its course, or are None where it is not known; `devices_j` the energy of each device, and
    `corrections` what a calibration did to each, None where there is none. `cold_idle` are the terms in W of the idle
    that was subtracted; windows with the same ones share that idle and its error.
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
    bins: "Bins | None" = None
    devices_j: tuple[float, ...] = ()
    corrections: tuple[Correction | None, ...] = ()
    edges_u_j: float = 0.0
    cold_idle: tuple[Term, ...] = ()


@dataclass(frozen=True)
class Bins:
    """A window bin by bin: energy in J, uncached prompt tokens, and generated tokens; each of shape (bins,)."""

    energy_j: Values
    prompt_tokens: Values
    generated_tokens: Values


def gather_cells(sessions: list[tuple[dict[str, Any], dict[str, Any]]]) -> tuple[list[FitCell], list[dict[str, Any]]]:
    """The usable windows of some sessions, and for each of the others its name and the reasons.

    Args:
        sessions: (energy.json, steady_load.json) of each session.
    """
    cells: list[FitCell] = []
    excluded: list[dict[str, Any]] = []
    for energy, steady in sessions:
        cold_idle = _own_terms(energy["idle"]["cold_power_w"])
        entries = {
            entry["name"]: Correction.of(entry) for entry in (energy.get("calibration") or {}).get("applied", [])
        }
        for name, window in energy["windows"].items():
            cell = f"{energy['session']}.{name}"
            load = steady["windows"][name]
            total = figure_from_dict(window["figures"]["energy_total_j"])
            active = figure_from_dict(window["figures"]["energy_active_j"])
            output = figure_from_dict(load["figures"]["output_tokens"])
            prompt = figure_from_dict(load["figures"]["prompt_tokens"])
            problems = list(
                dict.fromkeys([*blocking_reasons(total), *blocking_reasons(output), *blocking_reasons(prompt)])
            )
            if problems or total.value is None or output.value is None or prompt.value is None or total.value <= 0:
                excluded.append({"cell": cell, "reasons": _dicts(problems)})
                continue
            devices = [device for device in window["devices"] if device["summed"] and device["energy_j"]]
            cells.append(
                FitCell(
                    name=cell,
                    kind=load["kind"],
                    duration_s=load["duration_s"],
                    prompt_tokens=prompt.value - load["counts"]["cached_tokens"],
                    generated_tokens=output.value,
                    energy_total_j=total.value,
                    energy_active_j=active.value,
                    boundary=total.boundary,
                    grade=total.grade,
                    cached_known=bool(load["counts"]["cached_tokens_known"] or not prompt.value),
                    bins=_bins(window, load),
                    devices_j=tuple(device["energy_j"] for device in devices),
                    corrections=tuple(entries.get((d.get("calibration") or {}).get("name")) for d in devices),
                    edges_u_j=_edges_u_j(total),
                    cold_idle=cold_idle,
                )
            )
    return cells, excluded


def _bins(window: dict[str, Any], load: dict[str, Any]) -> Bins | None:
    energy_j, counts = (window.get("bins") or {}).get("energy_total_j"), load.get("bins")
    if energy_j is None or counts is None:
        return None
    prompts = np.asarray(counts["prompt_tokens"], dtype=np.float64)
    return Bins(
        np.asarray(energy_j, dtype=np.float64),
        prompts - np.asarray(counts["cached_tokens"], dtype=np.float64),
        np.asarray(counts["output_tokens"], dtype=np.float64),
    )


def _edges_u_j(total: Figure) -> float:
    """The part of the budget that the window's edges are, in J."""
    return math.hypot(*(term.u for term in Budget.from_record(total.budget).terms if term.name == EDGES))


def _own_terms(cold_power: dict[str, Any]) -> tuple[Term, ...]:
    """The terms of the cold idle that it does not share with the windows, in W."""
    terms = Budget.from_record(figure_from_dict(cold_power).budget).terms
    return tuple(term for term in terms if term.name in OWN_TERMS)


def _dicts(reasons: list[Reason]) -> list[dict[str, str]]:
    return [{"code": r.code, "detail": r.detail} for r in reasons]
