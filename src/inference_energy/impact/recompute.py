"""The chain from raw folders to carbon, in memory: the same functions as the pipeline's stages, no Snakemake.

The archive's check uses it (`provenance.recompute`): what it gives must equal the stored summary.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_energy.analysis.energy import energy_of_session
from inference_energy.analysis.fit.models import fit_server
from inference_energy.analysis.session_facts import read_session
from inference_energy.analysis.steady_load import steady_load
from inference_energy.analysis.summary import SessionParts, summary
from inference_energy.analysis.warmup import launch, warmup
from inference_energy.config.analysis import AnalysisConfig, ImpactConfig, Uncertainty
from inference_energy.contracts.calibration import KEY, Calibrations, read_calibrations
from inference_energy.contracts.documents.energy import EnergyDocument, FitDocument
from inference_energy.contracts.documents.experiment import SummaryDocument
from inference_energy.contracts.documents.windows import SteadyLoadDocument
from inference_energy.errors import InputError
from inference_energy.impact.footprint import footprint


@dataclass(frozen=True)
class RawSession:
    """The raw files of one session and of its server's cold idle."""

    session: Path
    phases: Path
    requests: Path
    server_metrics: Path
    power: Path
    idle: Path
    idle_power: Path
    environment: Path
    model: Path

    @classmethod
    def below(cls, raw_root: Path, machine: str, session: str, server: str) -> "RawSession":
        """The files in a folder of raw results."""
        here = raw_root / machine / "sessions" / session
        idle = raw_root / machine / "idle" / server
        return cls(
            session=here / "session.json",
            phases=here / "phases.parquet",
            requests=here / "requests.parquet",
            server_metrics=here / "server_metrics.parquet",
            power=here / "power.parquet",
            idle=idle / "idle.json",
            idle_power=idle / "power.parquet",
            environment=here / "environment.json",
            model=raw_root / machine / "servers" / server / "model.json",
        )


def recompute(raw_root: Path, plan: dict[str, Any], calibration: Path | None = None) -> SummaryDocument:
    """summary.json of an experiment without estimates, from its raw files alone; see `recompute_sessions`."""
    sessions = recompute_sessions(raw_root, plan, calibration)
    uncertainty = AnalysisConfig.model_validate(plan["analysis"]).uncertainty
    return summary(plan["experiment"], sessions, fits(sessions, uncertainty))


def recompute_sessions(raw_root: Path, plan: dict[str, Any], calibration: Path | None = None) -> list[SessionParts]:
    """The derived files of all sessions of an experiment, from their raw files alone.

    Args:
        raw_root: the folder that holds {machine}/sessions/{session}/ and {machine}/idle/{server}/.
        plan: `experiment`, `analysis` and `impact` (the configuration's sections), and `sessions`: a list of
            {machine, session, server} in the order of the summary.
        calibration: a copy of the file that `plan.analysis.calibration` names; the path in the plan is not followed,
            because the plan may be a stranger's.

    Raises:
        InputError: a raw file or the calibration is missing or cannot be used.
    """
    analysis = AnalysisConfig.model_validate(plan["analysis"])
    impact = ImpactConfig.model_validate(plan["impact"])
    calibrations = None
    if analysis.calibration:
        if calibration is None:
            raise InputError(f"{KEY}: the plan names {analysis.calibration}, but that file is not given")
        calibrations = read_calibrations(calibration)
    return [
        session_parts(
            RawSession.below(raw_root, s["machine"], s["session"], s["server"]), analysis, impact, calibrations
        )
        for s in plan["sessions"]
    ]


def session_parts(
    files: RawSession, analysis: AnalysisConfig, impact: ImpactConfig, calibrations: Calibrations | None = None
) -> SessionParts:
    """All derived files of one session; `calibrations` are those that `analysis.calibration` names."""
    steady = steady_load(
        session=files.session,
        phases=files.phases,
        requests=files.requests,
        server_metrics=files.server_metrics,
        power=files.power,
        config=analysis,
    )
    energy = energy_of_session(
        session=files.session,
        phases=files.phases,
        power=files.power,
        idle=files.idle,
        idle_power=files.idle_power,
        steady=steady,
        config=analysis,
        calibrations=calibrations,
    )
    return SessionParts(
        session=read_session(files.session),
        launch=launch(session=files.session, phases=files.phases),
        warmup=warmup(session=files.session, phases=files.phases, requests=files.requests),
        steady=steady,
        energy=energy,
        carbon=footprint(energy, impact),
    )


def fits(sessions: list[SessionParts], uncertainty: Uncertainty) -> list[FitDocument]:
    """One fit for each server on each machine, in the order in which they first occur."""
    groups: dict[tuple[str, str], list[tuple[EnergyDocument, SteadyLoadDocument]]] = {}
    for parts in sessions:
        groups.setdefault((parts.energy.machine, parts.energy.server), []).append((parts.energy, parts.steady))
    return [fit_server(group, uncertainty) for group in groups.values()]
