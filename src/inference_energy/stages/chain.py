"""The chain of stages in memory: the results of an experiment from its raw files, without Snakemake.

What it gives must equal the stored summary: `verify` compares them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_energy.analysis.session_facts import read_session
from inference_energy.analysis.summary import SessionParts
from inference_energy.config.analysis import AnalysisConfig, ImpactConfig
from inference_energy.contracts.calibration import KEY
from inference_energy.contracts.figure import json_values
from inference_energy.errors import InputError
from inference_energy.estimate.calibration import SHIPPED
from inference_energy.plan.stage_configs import ExperimentSettings, SessionNames
from inference_energy.stages import registry
from inference_energy.stages.registry import STAGES, File, Input, Stage, stage_config

ESTIMATE_KEY = "estimate.calibration"

_STAGE_OF = {stage.output: stage for stage in STAGES.values() if stage.output is not None}


class Chain:
    """The results of an experiment, each computed when it is first asked for.

    Args:
        raw_root: the folder of raw results.
        settings: the experiment.
        calibration: a copy of the file that `analysis.calibration` names.
        estimate_calibration: a copy of the file that `estimate.calibration` names; None for a shipped one. No path in
            the settings is followed, because they may be a stranger's.

    Raises:
        InputError: a calibration is named and not given. Results raise it where a raw file cannot be used.
    """

    def __init__(
        self,
        raw_root: Path,
        settings: ExperimentSettings,
        calibration: Path | None = None,
        estimate_calibration: Path | None = None,
    ) -> None:
        self._raw_root = raw_root
        self._settings = settings
        self._calibrations = {
            registry.CALIBRATION: _copy(KEY, settings.analysis.calibration, calibration),
            registry.ESTIMATE_CALIBRATION: _copy(
                ESTIMATE_KEY,
                settings.estimate.calibration if settings.estimate else None,
                estimate_calibration,
                SHIPPED,
            ),
        }
        self._contents: dict[tuple[str, ...], Any] = {}

    def result(self, file: File, owner: SessionNames | None = None) -> Any:
        """Return what a stage gets of a file: the path of a raw one, the content of a computed one.

        Args:
            file: which.
            owner: the session that it belongs to, or a session of the server that it belongs to.
        """
        if file in self._calibrations:
            return self._calibrations[file]
        if not file.computed:
            assert owner is not None
            return raw_path(self._raw_root, file, owner)
        key = (file.path, *_names(file, owner))
        if key not in self._contents:
            stage = _STAGE_OF[file]
            inputs = {read.file.name: self._input(read, stage, owner) for read in stage.inputs}
            try:
                self._contents[key] = stage.run(inputs, stage_config(stage, self._settings))
            except Exception as error:
                error.add_note(" ".join((f"stage {stage.name}", *_names(file, owner))) + ": ")
                raise
        return self._contents[key]

    def session_parts(self, owner: SessionNames) -> SessionParts:
        """Return the computed files of a session."""
        return SessionParts(
            session=read_session(self.result(registry.SESSION, owner)),
            launch=self.result(registry.LAUNCH, owner),
            warmup=self.result(registry.WARMUP, owner),
            steady=self.result(registry.STEADY_LOAD, owner),
            energy=self.result(registry.ENERGY, owner),
            carbon=self.result(registry.CARBON, owner),
        )

    def _input(self, read: Input, stage: Stage, owner: SessionNames | None) -> Any:
        if read.file.computed and read.optional and not self._is_configured(_STAGE_OF[read.file]):
            return None
        if read.each is None:
            return self.result(read.file, owner)
        sessions = [
            session
            for session in self._settings.sessions
            if stage.owner == "experiment" or (owner and _server(session) == _server(owner))
        ]
        if read.each == "server":
            sessions = list({_server(session): session for session in reversed(sessions)}.values())[::-1]
        return [self.result(read.file, session) for session in sessions]

    def _is_configured(self, stage: Stage) -> bool:
        return stage.config is None or stage_config(stage, self._settings) is not None


def raw_path(raw_root: Path, file: File, owner: SessionNames) -> Path:
    """Return the path of a raw file of a session, or of its server, in a folder of raw results."""
    return raw_root / file.path.removeprefix("raw/").format(**owner.model_dump())


def _names(file: File, owner: SessionNames | None) -> tuple[str, ...]:
    if owner is None or file.owner == "experiment":
        return ()
    return _server(owner) if file.owner == "server" else (owner.machine, owner.session)


def _server(session: SessionNames) -> tuple[str, str]:
    return session.machine, session.server


def _copy(key: str, named: str | None, copy: Path | None, shipped: Sequence[str] = ()) -> Path | None:
    """Return the copy of a calibration that the settings name."""
    if named is None or named in shipped:
        return None
    if copy is None:
        raise InputError(f"{key}: the plan names {named}, but that file is not given")
    return copy


def recompute_summary(
    raw_root: Path,
    plan: ExperimentSettings | Mapping[str, Any],
    calibration: Path | None = None,
    estimate_calibration: Path | None = None,
) -> dict[str, Any]:
    """Return summary.json of an experiment, from its raw files alone; see `Chain`."""
    chain = Chain(raw_root, ExperimentSettings.model_validate(plan), calibration, estimate_calibration)
    content: dict[str, Any] = json_values(chain.result(registry.SUMMARY))
    return content


@dataclass(frozen=True)
class RawSession:
    """The raw files of one session and of its server."""

    raw_root: Path
    names: SessionNames
    session: Path
    phases: Path
    requests: Path
    server_metrics: Path
    power: Path
    environment: Path
    idle: Path
    idle_power: Path
    model: Path

    @classmethod
    def below(cls, raw_root: Path, machine: str, session: str, server: str) -> "RawSession":
        """Return the files in a folder of raw results."""
        names = SessionNames(machine=machine, session=session, server=server)
        files = (
            *(registry.SESSION, registry.PHASES, registry.REQUESTS, registry.SERVER_METRICS, registry.POWER),
            *(registry.ENVIRONMENT, registry.IDLE, registry.IDLE_POWER, registry.MODEL),
        )
        return cls(raw_root, names, **{file.name: raw_path(raw_root, file, names) for file in files})


def session_parts(
    files: RawSession, analysis: AnalysisConfig, impact: ImpactConfig, calibration: Path | None = None
) -> SessionParts:
    """Return the computed files of one session; `calibration` is applied whatever `analysis` names."""
    settings = ExperimentSettings(
        experiment=files.names.session,
        analysis=analysis.model_copy(update={"calibration": str(calibration) if calibration else None}),
        impact=impact,
        sessions=[files.names],
    )
    return Chain(files.raw_root, settings, calibration).session_parts(files.names)
