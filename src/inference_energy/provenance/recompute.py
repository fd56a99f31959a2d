"""The whole summary of an experiment from its raw files: what the summary in an archive must equal."""

from pathlib import Path
from typing import Any

from inference_energy.analysis.attribution import attribute_session
from inference_energy.analysis.summary import SessionParts, summary
from inference_energy.config.analysis import AnalysisConfig, EstimateConfig
from inference_energy.contracts.documents.document import document_from_dict
from inference_energy.contracts.documents.estimates import EstimatesDocument
from inference_energy.contracts.documents.experiment import MetricsDocument
from inference_energy.contracts.figure import json_values
from inference_energy.contracts.io import read_json
from inference_energy.errors import InputError
from inference_energy.estimate.calibration import SHIPPED, EnergyCalibration, read_calibration
from inference_energy.estimate.session_estimates import estimate_session
from inference_energy.impact.recompute import RawSession, fits, recompute_sessions
from inference_energy.metrics.stage import SessionResults, Settings, metrics

KEY = "estimate.calibration"


def recompute_summary(
    raw_root: Path,
    plan: dict[str, Any],
    calibration: Path | None = None,
    estimate_calibration: Path | None = None,
) -> dict[str, Any]:
    """Return the content of summary.json of an experiment, from its raw files alone.

    Args:
        raw_root: the folder that holds {machine}/sessions/{session}/ and the rest.
        plan: `experiment`, `analysis`, `impact`, `sessions`; `estimate` and `metrics` where the experiment had them.
        calibration: a copy of the file that `plan.analysis.calibration` names.
        estimate_calibration: a copy of the file that `plan.estimate.calibration` names; none for a shipped one. No path
            in the plan is followed, because the plan may be a stranger's.

    Raises:
        InputError: a raw file or a calibration is missing or cannot be used.
    """
    analysis = AnalysisConfig.model_validate(plan["analysis"])
    sessions = recompute_sessions(raw_root, plan, calibration)
    files = [RawSession.below(raw_root, s["machine"], s["session"], s["server"]) for s in plan["sessions"]]
    fitted = fits(sessions, analysis.uncertainty)
    estimates = found = None
    if "estimate" in plan:
        config = EstimateConfig.model_validate(plan["estimate"])
        used = _calibration(config, estimate_calibration)
        estimates = [estimates_of(raw, parts, config, used) for raw, parts in zip(files, sessions, strict=True)]
    if "metrics" in plan:
        results = [results_of(raw, parts, analysis) for raw, parts in zip(files, sessions, strict=True)]
        settings = Settings.of(plan["metrics"], analysis.uncertainty)
        family = metrics(plan["experiment"], results, json_values(fitted), settings)
        found = document_from_dict(family, MetricsDocument, MetricsDocument.FILE)
    content: dict[str, Any] = json_values(summary(plan["experiment"], sessions, fitted, estimates, found))
    return content


def estimates_of(
    files: RawSession, parts: SessionParts, config: EstimateConfig, calibration: EnergyCalibration | None
) -> EstimatesDocument:
    """Return estimates.json of one session."""
    content = estimate_session(
        session=files.session,
        model=files.model,
        environment=files.environment,
        requests=files.requests,
        server_metrics=files.server_metrics,
        steady=json_values(parts.steady),
        energy=json_values(parts.energy),
        config=config,
        calibration=calibration,
    )
    return document_from_dict(content, EstimatesDocument, EstimatesDocument.FILE)


def results_of(files: RawSession, parts: SessionParts, analysis: AnalysisConfig) -> SessionResults:
    """What the metrics take of one session."""
    return SessionResults(
        energy=json_values(parts.energy),
        steady=json_values(parts.steady),
        carbon=json_values(parts.carbon),
        model=read_json(files.model),
        requests=files.requests,
        prompts=files.requests.with_name("prompts.parquet"),
        receipts=attribute_session(requests=files.requests, energy=parts.energy, config=analysis),
    )


def _calibration(config: EstimateConfig, copy: Path | None) -> EnergyCalibration | None:
    named = config.calibration
    if named is None:
        return None
    if named in SHIPPED:
        return read_calibration(named)
    if copy is None:
        raise InputError(f"{KEY}: the plan names {named}, but that file is not given")
    return read_calibration(str(copy))
