"""The whole summary from raw folders, in memory: what an archive's check compares with the stored one."""

from pathlib import Path
from typing import Any

from inference_energy.analysis.attribute import attribute
from inference_energy.analysis.summary import summary
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts.tables import read_json
from inference_energy.impact.recompute import RawSession, chain
from inference_energy.metrics.stage import SessionResults, Settings, metrics


def recompute_whole(raw_root: Path, plan: dict[str, Any], calibration: Path | None = None) -> dict[str, Any]:
    """summary.json of an experiment, from its raw files alone.

    Args:
        raw_root: the folder that holds {machine}/sessions/{session}/, {machine}/idle/{server}/ and
            {machine}/servers/{server}/.
        plan: that of experiment.json.
        calibration: a copy of the file that `plan.analysis.calibration` names.

    Raises:
        InputError: a raw file or the calibration is missing or cannot be used.
    """
    analysis = AnalysisConfig.model_validate(plan["analysis"])
    sessions, fits = chain(raw_root, plan, calibration)
    results = []
    for planned, parts in zip(plan["sessions"], sessions, strict=True):
        machine, server = planned["machine"], planned["server"]
        files = RawSession.below(raw_root, machine, planned["session"], server)
        results.append(
            SessionResults(
                energy=parts.energy,
                steady=parts.steady,
                carbon=parts.carbon,
                model=read_json(raw_root / machine / "servers" / server / "model.json"),
                requests=files.requests,
                prompts=files.requests.with_name("prompts.parquet"),
                receipts=attribute(requests=files.requests, energy=parts.energy, config=analysis),
            )
        )
    settings = Settings.of(plan["metrics"], analysis.uncertainty)
    return summary(plan["experiment"], sessions, fits, metrics(plan["experiment"], results, fits, settings))
