"""The summary of an experiment, estimates and all, from its raw files: what an archive's stored summary must equal."""

from pathlib import Path
from typing import Any

from inference_energy.analysis.summary import SessionParts, summary
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.config.estimate import EstimateConfig
from inference_energy.errors import InputError
from inference_energy.estimate.calibration.record import SHIPPED, Calibration, load_calibration
from inference_energy.estimate.session.stage import estimate_session
from inference_energy.impact.recompute import RawSession, fits, recompute_sessions

KEY = "estimate.calibration"


def recompute_summary(
    raw_root: Path,
    plan: dict[str, Any],
    calibration: Path | None = None,
    estimate_calibration: Path | None = None,
) -> dict[str, Any]:
    """summary.json of an experiment, from its raw files alone.

    Args:
        raw_root: the folder that holds {machine}/sessions/{session}/ and the rest.
        plan: `experiment`, `analysis`, `impact`, `sessions`, and `estimate` where the experiment had estimates.
        calibration: a copy of the file that `plan.analysis.calibration` names.
        estimate_calibration: a copy of the file that `plan.estimate.calibration` names; none for a shipped one. No path
            in the plan is followed, because the plan may be a stranger's.

    Raises:
        InputError: a raw file or a calibration is missing or cannot be used.
    """
    sessions = recompute_sessions(raw_root, plan, calibration)
    fitted = fits(sessions, AnalysisConfig.model_validate(plan["analysis"]).uncertainty)
    if "estimate" not in plan:
        return summary(plan["experiment"], sessions, fitted)
    config = EstimateConfig.model_validate(plan["estimate"])
    used = _calibration(config, estimate_calibration)
    estimates = [
        estimates_of(RawSession.below(raw_root, s["machine"], s["session"], s["server"]), parts, config, used)
        for s, parts in zip(plan["sessions"], sessions, strict=True)
    ]
    return summary(plan["experiment"], sessions, fitted, estimates)


def estimates_of(
    files: RawSession, parts: SessionParts, config: EstimateConfig, calibration: Calibration | None
) -> dict[str, Any]:
    """estimates.json of one session."""
    return estimate_session(
        session=files.session,
        model=files.model,
        environment=files.environment,
        requests=files.requests,
        server_metrics=files.server_metrics,
        steady=parts.steady,
        energy=parts.energy,
        config=config,
        calibration=calibration,
    )


def _calibration(config: EstimateConfig, copy: Path | None) -> Calibration | None:
    named = config.calibration
    if named is None:
        return None
    if named in SHIPPED:
        return load_calibration(named)
    if copy is None:
        raise InputError(f"{KEY}: the plan names {named}, but that file is not given")
    return load_calibration(str(copy))
