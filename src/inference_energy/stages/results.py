"""The functions of stages that match files of several sessions, or read the calibration that a setting names.

The other stages of the analysis have the function that does their work in `stages.registry` directly.
"""

from pathlib import Path

import pandas as pd

from inference_energy.analysis import summary as summaries
from inference_energy.analysis.energy import energy_of_session
from inference_energy.analysis.fit.models import fit_server
from inference_energy.analysis.session_facts import read_session
from inference_energy.config.analysis import EnergyConfig, EstimateConfig, FitConfig
from inference_energy.contracts.calibration import read_calibrations
from inference_energy.contracts.documents.document import read_document
from inference_energy.contracts.documents.energy import CarbonDocument, EnergyDocument, FitDocument
from inference_energy.contracts.documents.estimates import EstimatesDocument
from inference_energy.contracts.documents.experiment import MetricsDocument, PlannedSession, SummaryDocument
from inference_energy.contracts.documents.machine import ModelDocument
from inference_energy.contracts.documents.windows import LaunchDocument, SteadyLoadDocument, WarmupDocument
from inference_energy.contracts.io import file_sha256
from inference_energy.errors import InputError
from inference_energy.estimate.calibration import read_calibration
from inference_energy.estimate.session_estimates import estimate_session
from inference_energy.metrics.stage import SessionResults, Settings
from inference_energy.metrics.stage import metrics as metric_family
from inference_energy.plan.stage_configs import MetricsStageConfig, SummaryConfig


def integrate(
    *,
    session: Path,
    phases: Path,
    power: Path,
    idle: Path,
    idle_power: Path,
    steady_load: SteadyLoadDocument,
    config: EnergyConfig,
    calibration: Path | None = None,
) -> EnergyDocument:
    """Return energy.json."""
    return energy_of_session(
        session=session,
        phases=phases,
        power=power,
        idle=idle,
        idle_power=idle_power,
        steady=steady_load,
        config=config,
        calibrations=read_calibrations(calibration) if calibration else None,
    )


def fit(*, energy: list[EnergyDocument], steady_load: list[SteadyLoadDocument], config: FitConfig) -> FitDocument:
    """Return fit.json of the sessions of one server, given in any order.

    Raises:
        InputError: steady_load.json of a session is missing.
    """
    loads = {(load.machine, load.session): load for load in steady_load}
    sessions = []
    for energies in energy:
        load = loads.get((energies.machine, energies.session))
        if load is None:
            raise InputError(f"--steady-load: that of session {energies.session} is not given")
        sessions.append((energies, load))
    return fit_server(sessions, config.uncertainty)


def estimate(
    *,
    session: Path,
    model: Path,
    environment: Path,
    requests: Path,
    server_metrics: Path,
    steady_load: SteadyLoadDocument,
    energy: EnergyDocument,
    config: EstimateConfig,
    calibration: Path | None = None,
) -> EstimatesDocument:
    """Return estimates.json; `calibration` is the file that `config.calibration` names, if it names no shipped one."""
    source = str(calibration) if calibration else config.calibration
    return estimate_session(
        session=session,
        model=model,
        environment=environment,
        requests=requests,
        server_metrics=server_metrics,
        steady=steady_load,
        energy=energy,
        config=config,
        calibration=read_calibration(source, "estimate.calibration") if source else None,
    )


def metrics(
    *,
    steady_load: list[SteadyLoadDocument],
    energy: list[EnergyDocument],
    carbon: list[CarbonDocument],
    receipts: list[pd.DataFrame],
    requests: list[Path],
    prompts: list[Path],
    model: list[Path],
    fit: list[FitDocument],
    config: MetricsStageConfig,
) -> MetricsDocument:
    """Return metrics.json; every list but the fits has one file of each session, in the same order."""
    sessions = [
        SessionResults(
            energy=energies,
            steady=steady,
            carbon=footprint,
            model=read_document(model_path, ModelDocument),
            requests=requests_path,
            prompts=prompts_path,
            receipts=charged,
        )
        for energies, steady, footprint, model_path, requests_path, prompts_path, charged in zip(
            energy, steady_load, carbon, model, requests, prompts, receipts, strict=True
        )
    ]
    settings = Settings.of(config.metrics.model_dump(), config.analysis.uncertainty)
    return metric_family(config.experiment, sessions, fit, settings)


def summary(
    *,
    session: list[Path],
    launch: list[LaunchDocument],
    warmup: list[WarmupDocument],
    steady_load: list[SteadyLoadDocument],
    energy: list[EnergyDocument],
    carbon: list[CarbonDocument],
    fit: list[FitDocument],
    config: SummaryConfig,
    estimate: list[EstimatesDocument] | None = None,
    metrics: MetricsDocument | None = None,
) -> SummaryDocument:
    """Return summary.json; the files of the sessions may be in any order."""
    documents = [read_session(path) for path in session]
    parts = summaries.match_parts(
        session=documents,
        launch=launch,
        warmup=warmup,
        steady=steady_load,
        energy=energy,
        carbon=carbon,
    )
    ordered = summaries.in_order(parts, [PlannedSession(**names.model_dump()) for names in config.sessions])
    digests = {
        (document.machine, document.session): file_sha256(path)
        for document, path in zip(documents, session, strict=True)
        if document.files is not None
    }
    return summaries.summary(config.experiment, ordered, fit, estimate, metrics, digests)
