"""Stage `metrics`: the metric family of an experiment, over all its sessions, because sweeps cross sessions.

Pareto fronts and daily use can also be recomputed from a finished experiment, for other figures or another day.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from inference_energy.config.analysis import MetricsConfig, Uncertainty
from inference_energy.contracts import requests as requests_contract
from inference_energy.contracts import schedule as schedule_contract
from inference_energy.contracts.documents.document import VERSION, read_document
from inference_energy.contracts.documents.energy import CarbonDocument, EnergyDocument, ExcludedWindow, FitDocument
from inference_energy.contracts.documents.experiment import (
    ExperimentDocument,
    LoadSweep,
    MetricsDocument,
    MetricWindow,
    ParetoFront,
    SummaryDocument,
)
from inference_energy.contracts.documents.machine import ModelDocument
from inference_energy.contracts.documents.windows import SteadyLoadDocument
from inference_energy.contracts.figure import Figure
from inference_energy.contracts.io import read_table
from inference_energy.contracts.traffic import Traffic, read_traffic
from inference_energy.errors import InputError
from inference_energy.metrics.daily_use import daily_use, hourly_power
from inference_energy.metrics.energy_delay import energy_delay
from inference_energy.metrics.energy_per_answer import energy_per_answer, goodput_at_floor
from inference_energy.metrics.energy_per_token import energy_per_token
from inference_energy.metrics.energy_proportionality import energy_proportionality, power_at_levels
from inference_energy.metrics.goodput_per_joule import goodput_per_joule
from inference_energy.metrics.inputs import WindowInputs, read_windows
from inference_energy.metrics.ml_ecolyzer_ess import ml_ecolyzer_ess
from inference_energy.metrics.pareto import Candidate, front
from inference_energy.metrics.quality import Grades, grade_answers
from inference_energy.metrics.request_energy import request_energy
from inference_energy.metrics.sci import sci
from inference_energy.metrics.sweep import Sweep, sweeps
from inference_energy.metrics.token_cost import token_cost
from inference_energy.metrics.water import water_per_token


@dataclass(frozen=True)
class Settings:
    """Settings of the metric family.

    Attributes:
        config: section `metrics` of the configuration.
        traffic: a day of traffic; None without one.
        replicas: servers that share the traffic.
        uncertainty: stated uncertainties of the sensors.
    """

    config: MetricsConfig
    traffic: Traffic | None
    replicas: int
    uncertainty: Uncertainty

    @classmethod
    def of(cls, spec: Mapping[str, Any], uncertainty: Uncertainty) -> "Settings":
        """Read the model `MetricsPlan`, dumped: section `metrics` with the content of the traffic profile."""
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
    """The inputs of the metrics from one session.

    Attributes:
        energy: energy.json.
        steady: steady_load.json.
        carbon: carbon.json.
        model: model.json of its server.
        requests: requests.parquet; answers.parquet in its folder is used if it exists.
        prompts: prompts.parquet.
        receipts: the content of receipts.parquet.
    """

    energy: EnergyDocument
    steady: SteadyLoadDocument
    carbon: CarbonDocument
    model: ModelDocument
    requests: Path
    prompts: Path
    receipts: pd.DataFrame


def metrics(
    experiment: str, sessions: Iterable[SessionResults], fits: Iterable[FitDocument], settings: Settings
) -> MetricsDocument:
    """Return metrics.json of an experiment.

    Args:
        experiment: its name.
        sessions: in the order of the summary.
        fits: the fit of each server.
        settings: settings of the family.

    Raises:
        InputError: a file cannot be used, or `metrics.pareto` names an unknown figure.
    """
    windows = [window for session in sessions for window in _windows(session)]
    graded = {window.key: grade_answers(window, settings.config.quality) for window in windows}
    figures = {window.key: _figures(window, windows, graded, settings) for window in windows}
    candidates = [
        Candidate(
            window.machine,
            window.full_name,
            window.kind,
            window.workload,
            {**window.figures, **figures[window.key]},
        )
        for window in windows
    ]
    return MetricsDocument(
        version=VERSION,
        experiment=experiment,
        cells=[
            MetricWindow(
                machine=window.machine,
                cell=window.full_name,
                session=window.session,
                server=window.server,
                figures=figures[window.key],
            )
            for window in windows
        ],
        sweeps=[_sweep_entry(sweep, settings) for sweep in sweeps(windows)],
        token_costs=[token_cost(fit) for fit in _in_order(fits, windows)],
        fronts=[front(candidates, names) for names in settings.config.pareto] if windows else [],
    )


def recompute_front(summary: SummaryDocument, names: tuple[str, str]) -> ParetoFront:
    """Return the fronts of a finished experiment over two figures of its summary or its metrics.

    Raises:
        InputError: as `pareto.front`.
    """
    added = {
        (window.machine, window.cell): window.figures for window in (summary.metrics.cells if summary.metrics else ())
    }
    candidates = [
        Candidate(
            window.machine,
            window.cell,
            window.kind,
            window.load.workload,
            {**window.figures, **added.get((window.machine, window.cell), {})},
        )
        for window in summary.cells
    ]
    return front(candidates, names)


def recompute_daily_use(experiment: Path, traffic: Path, replicas: int) -> list[LoadSweep]:
    """Return the sweeps of a finished experiment with the daily use of another traffic profile.

    Args:
        experiment: its folder; the derived files of its sessions are in `../derived`, where the pipeline puts them.
        traffic: the profile.
        replicas: servers that share it.

    Raises:
        InputError: the profile cannot be used, or a derived file is missing.
    """
    profile = read_traffic(traffic, "--traffic")
    plan = read_document(experiment / "experiment.json", ExperimentDocument).plan
    uncertainty = Uncertainty.model_validate(plan.analysis.get("uncertainty") or {})
    settings = Settings(MetricsConfig(), profile, replicas, uncertainty)
    windows = []
    for session in plan.sessions:
        folder = experiment.absolute().parent / "derived" / session.machine / session.session
        windows += read_windows(
            read_document(folder / EnergyDocument.FILE, EnergyDocument),
            read_document(folder / SteadyLoadDocument.FILE, SteadyLoadDocument),
            read_document(folder / CarbonDocument.FILE, CarbonDocument),
        )
    return [_sweep_entry(sweep, settings) for sweep in sweeps(windows)]


def _sweep_entry(sweep: Sweep, settings: Settings) -> LoadSweep:
    return LoadSweep(
        machine=sweep.machine,
        server=sweep.server,
        workload=sweep.workload,
        rate=sweep.rate.figure,
        levels=[window.full_name for window in sweep.levels],
        left_out=[ExcludedWindow(cell=name, reasons=list(reasons)) for name, reasons in sweep.left_out],
        idle_w=None if sweep.problems else sweep.idle_w,
        figures={
            **energy_proportionality(sweep, settings.uncertainty),
            **daily_use(sweep, settings.traffic, settings.replicas, settings.uncertainty),
        },
        grid=power_at_levels(sweep),
        hours=hourly_power(sweep, settings.traffic, settings.replicas) if settings.traffic else None,
    )


def _figures(
    window: WindowInputs,
    windows: Sequence[WindowInputs],
    graded: Mapping[tuple[str, str], Grades],
    settings: Settings,
) -> dict[str, Figure]:
    grades = graded[window.key]
    of_server = [
        graded[other.key]
        for other in windows
        if (other.machine, other.server) == (window.machine, window.server) and not graded[other.key].problems
    ]
    return {
        **energy_per_token(window),
        **request_energy(window, settings.uncertainty),
        **goodput_per_joule(window),
        **energy_delay(window),
        **sci(window, settings.config.embodied),
        **water_per_token(window),
        **energy_per_answer(window, grades),
        **goodput_at_floor(window, of_server or [grades], settings.config.quality),
        **ml_ecolyzer_ess(window),
    }


def _windows(session: SessionResults) -> list[WindowInputs]:
    documents = (session.energy, session.steady, session.carbon)
    sessions = {(document.machine, document.session) for document in documents}
    if len(sessions) != 1:
        raise InputError(f"files of different sessions stand in one place: {sorted(sessions)}")
    requests = read_table(session.requests, requests_contract.SCHEMA)
    answers_path = session.requests.with_name("answers.parquet")
    answers = read_table(answers_path, requests_contract.ANSWERS_SCHEMA) if answers_path.is_file() else None
    prompts = read_table(session.prompts, schedule_contract.PROMPTS)
    return [
        replace(
            window,
            requests=requests[requests["cell"] == window.name],
            receipts=session.receipts[session.receipts["cell"] == window.name],
            prompts=prompts,
            answers=None if answers is None else _answers(answers, window.name),
            model=session.model,
        )
        for window in read_windows(session.energy, session.steady, session.carbon)
    ]


def _answers(answers: pd.DataFrame, name: str) -> pd.DataFrame | None:
    """Return a window's answers; None if none was kept, because only another workload's were."""
    rows = answers[answers["cell"] == name]
    return None if rows.empty else rows


def _in_order(fits: Iterable[FitDocument], windows: Sequence[WindowInputs]) -> list[FitDocument]:
    servers = list(dict.fromkeys((window.machine, window.server) for window in windows))
    return sorted(fits, key=lambda fit: servers.index((fit.machine, fit.server)))
