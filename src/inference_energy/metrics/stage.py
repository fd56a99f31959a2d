"""Parts of the family computed again from a finished experiment: other Pareto fronts, another day of traffic.

Parts of the family computed again from a finished experiment: other Pareto fronts, another day of traffic.

Stage `metrics`: the metric family of an experiment, over all its sessions, since sweeps cross them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from inference_energy.analysis.figures import figure_from_dict
from inference_energy.config.analysis import MetricsConfig, Uncertainty
from inference_energy.contracts import requests as answers_contract
from inference_energy.contracts import requests as requests_contract
from inference_energy.contracts import schedule as schedule_contract
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.io import read_json, read_table
from inference_energy.contracts.traffic import Traffic, read_traffic
from inference_energy.errors import InputError
from inference_energy.metrics.inputs import WindowInputs, read_windows
from inference_energy.metrics.daily_use import daily_use, hours
from inference_energy.metrics.energy_delay import energy_delay
from inference_energy.metrics.energy_per_answer import energy_per_answer, goodput_at_floor
from inference_energy.metrics.energy_per_token import energy_per_token
from inference_energy.metrics.energy_proportionality import grid, load_proportionality
from inference_energy.metrics.goodput_per_joule import goodput_per_joule
from inference_energy.metrics.ml_ecolyzer_ess import ess
from inference_energy.metrics.pareto import fronts
from inference_energy.metrics.quality import Grades, grades
from inference_energy.metrics.request_energy import request_energy
from inference_energy.metrics.sci import sci
from inference_energy.metrics.sweep import Sweep, sweeps
from inference_energy.metrics.token_cost import token_cost
from inference_energy.metrics.water import water_per_token


def recompute_fronts(summary: dict[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    """The fronts over two figures, of the summary or of its metrics.

    Raises:
        InputError: as in `fronts`.
    """
    windows = [
        {
            "machine": window["machine"],
            "cell": window["cell"],
            "kind": window["kind"],
            "workload": window["load"]["workload"],
        }
        for window in summary["cells"]
    ]
    figures: dict[tuple[str, str], dict[str, Any]] = {}
    for window in (*summary["cells"], *summary["metrics"]["cells"]):
        figures.setdefault((window["machine"], window["cell"]), {}).update(
            {name: figure_from_dict(window["figures"][name]) for name in names if name in window["figures"]}
        )
    return fronts(windows, names, figures)


def recompute_daily_use(experiment: Path, traffic: Path, replicas: int) -> list[dict[str, Any]]:
    """The sweeps of an experiment with the daily use of another profile.

    Args:
        experiment: its folder; the derived files of its sessions lie beside it, as the pipeline puts them.
        traffic: the profile.
        replicas: servers that share it.

    Raises:
        InputError: the profile is wrong, or a derived file is missing.
    """
    profile = read_traffic(traffic, "--traffic")
    plan = read_json(experiment / "experiment.json")["plan"]
    uncertainty = Uncertainty.model_validate(plan["analysis"].get("uncertainty") or {})
    settings = Settings(MetricsConfig(), profile, replicas, uncertainty)
    windows = []
    for planned in plan["sessions"]:
        folder = experiment.absolute().parent / "derived" / planned["machine"] / planned["session"]
        windows += read_windows(*(read_json(folder / f"{name}.json") for name in ("energy", "steady_load", "carbon")))
    return [sweep_entry(sweep, settings) for sweep in sweeps(windows)]


@dataclass(frozen=True)
class Settings:
    """What the family needs besides measurements: its section, a day of traffic, and what is not known of sensors."""

    config: MetricsConfig
    traffic: Traffic | None
    replicas: int
    uncertainty: Uncertainty

    @classmethod
    def of(cls, spec: Mapping[str, Any], uncertainty: Uncertainty) -> "Settings":
        """From what `Specs.metrics` gives."""
        content = dict(spec)
        traffic = content.pop("traffic", None)
        return cls(
            MetricsConfig.model_validate(content),
            Traffic.of(traffic) if traffic else None,
            int(traffic["replicas"]) if traffic else 1,
            uncertainty,
        )


@dataclass(frozen=True)
class SessionResults:
    """What the metrics take of one session.

    Attributes:
        energy: energy.json.
        steady: steady_load.json.
        carbon: carbon.json.
        model: model.json of its server.
        requests: requests.parquet; answers.parquet beside it is used where it is there.
        prompts: prompts.parquet.
        receipts: the content of receipts.parquet.
    """

    energy: dict[str, Any]
    steady: dict[str, Any]
    carbon: dict[str, Any]
    model: dict[str, Any]
    requests: Path
    prompts: Path
    receipts: pd.DataFrame


def metrics(
    experiment: str, sessions: Iterable[SessionResults], fits: Iterable[dict[str, Any]], settings: Settings
) -> dict[str, Any]:
    """metrics.json of an experiment.

    Args:
        experiment: its name.
        sessions: in the order of the summary.
        fits: fit.json of each server.
        settings: what the family needs besides.

    Returns:
        `windows` (new figures of each window), `sweeps`, `token_costs` and `fronts`.

    Raises:
        InputError: a file cannot be used, or `metrics.pareto` names what there is not.
    """
    windows = [window for session in sessions for window in _cells(session)]
    graded = {(window.machine, window.full_name): grades(window, settings.config.quality) for window in windows}
    found = {(window.machine, window.full_name): _figures(window, windows, graded, settings) for window in windows}
    every = {(window.machine, window.full_name): {**window.figures, **found[window.machine, window.full_name]} for window in windows}
    named = [
        {"machine": window.machine, "cell": window.full_name, "kind": window.kind, "workload": window.workload} for window in windows
    ]
    return {
        "version": 1,
        "experiment": experiment,
        "cells": [
            {
                "machine": window.machine,
                "cell": window.full_name,
                "session": window.session,
                "server": window.server,
                "figures": as_dicts(found[window.machine, window.full_name]),
            }
            for window in windows
        ],
        "sweeps": [sweep_entry(sweep, settings) for sweep in sweeps(windows)],
        "token_costs": [token_cost(fit) for fit in _in_order(fits, windows)],
        "fronts": [fronts(named, names, every) for names in settings.config.pareto] if windows else [],
    }


def sweep_entry(sweep: Sweep, settings: Settings) -> dict[str, Any]:
    """A sweep in metrics.json: what it is, its levels and figures, and its course."""
    figures = {
        **load_proportionality(sweep, settings.uncertainty),
        **daily_use(sweep, settings.traffic, settings.replicas, settings.uncertainty),
    }
    return {
        "machine": sweep.machine,
        "server": sweep.server,
        "workload": sweep.workload,
        "rate": sweep.rate.figure,
        "levels": [window.full_name for window in sweep.levels],
        "left_out": [{"cell": window, "reasons": _reasons(reasons)} for window, reasons in sweep.left_out],
        "idle_w": None if sweep.problems else sweep.idle_w,
        "figures": as_dicts(figures),
        "grid": grid(sweep),
        "hours": hours(sweep, settings.traffic, settings.replicas) if settings.traffic else None,
    }


def as_dicts(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Figures as JSON holds them."""
    return {name: figure.as_dict() for name, figure in figures.items()}


def _figures(
    window: WindowInputs, windows: list[WindowInputs], graded: Mapping[tuple[str, str], Grades], settings: Settings
) -> dict[str, Figure]:
    of_server = [
        graded[each.machine, each.window]
        for each in windows
        if (each.machine, each.server) == (window.machine, window.server) and not graded[each.machine, each.window].problems
    ]
    own = graded[window.machine, window.full_name]
    return {
        **energy_per_token(window),
        **request_energy(window, settings.uncertainty),
        **goodput_per_joule(window),
        **energy_delay(window),
        **sci(window, settings.config.embodied),
        **water_per_token(window),
        **energy_per_answer(window, own),
        **goodput_at_floor(window, of_server or [own], settings.config.quality),
        **ess(window),
    }


def _cells(session: SessionResults) -> list[WindowInputs]:
    owners = {(part["machine"], part["session"]) for part in (session.energy, session.steady, session.carbon)}
    if len(owners) != 1:
        raise InputError(f"files of different sessions stand in one place: {sorted(owners)}")
    requests = read_table(session.requests, requests_contract.SCHEMA)
    kept = session.requests.with_name("answers.parquet")
    answers = read_table(kept, answers_contract.ANSWERS_SCHEMA) if kept.is_file() else None
    prompts = read_table(session.prompts, schedule_contract.PROMPTS)
    return [
        replace(
            window,
            requests=requests[requests["cell"] == window.name],
            receipts=session.receipts[session.receipts["cell"] == window.name],
            prompts=prompts,
            answers=None if answers is None else _of(answers, window.name),
            model=session.model,
        )
        for window in read_windows(session.energy, session.steady, session.carbon)
    ]


def _of(answers: pd.DataFrame, name: str) -> pd.DataFrame | None:
    """A cell's answers; None where none of them was kept, as another workload's may have been."""
    rows = answers[answers["cell"] == name]
    return None if rows.empty else rows


def _in_order(fits: Iterable[dict[str, Any]], windows: list[WindowInputs]) -> list[dict[str, Any]]:
    servers = list(dict.fromkeys((window.machine, window.server) for window in windows))
    return sorted(fits, key=lambda fit: servers.index((fit["machine"], fit["server"])))


def _reasons(reasons: Iterable[Reason]) -> list[dict[str, str]]:
    return [{"code": each.code, "detail": each.detail} for each in reasons]
