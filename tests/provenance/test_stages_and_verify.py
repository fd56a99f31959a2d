"""What the commands of the stages write from what the rules pass is what `verify` computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import archived
import pytest
from archived import EXPERIMENT
from typer.testing import CliRunner

from inference_energy.cli.main import app
from inference_energy.contracts import phases as phases_contract
from inference_energy.contracts import power
from inference_energy.contracts.io import read_json, read_metadata, read_table, write_json, write_table
from inference_energy.plan.stage_configs import ExperimentSettings, SessionNames
from inference_energy.provenance.verify import verify
from inference_energy.stages.registry import STAGES, File, Stage, stage_config

pytestmark = pytest.mark.slow

OWNER = SessionNames(machine="bench", session="base", server="small")
COMPUTED = [stage for stage in STAGES.values() if stage.output and stage.output.computed and stage.name != "experiment"]


def lose_the_counter(results: Path, after_s: float, gap_s: float) -> None:
    """Take the GPU's energy counter out of the power log for some seconds of the second window."""
    path = results / "raw/bench/sessions/base/power.parquet"
    log, metadata = read_table(path, power.SCHEMA), read_metadata(path)
    phases = read_table(path.with_name("phases.parquet"), phases_contract.SCHEMA)
    window = phases[(phases["phase"] == "window") & (phases["cell"] == "high")].iloc[0]
    start_ns = int(window["start_ns"]) + round(after_s * 1e9)
    lost = log["energy_counter_j"].notna() & log["timestamp_ns"].between(start_ns, start_ns + round(gap_s * 1e9))
    write_table(path, log[~lost], power.SCHEMA, **{key: metadata[key] for key in ("clock_anchor", "source")})


def path_of(results: Path, file: File) -> Path:
    return results / file.path.format(**OWNER.model_dump(), experiment=EXPERIMENT)


def run(stage: Stage, results: Path, settings: ExperimentSettings) -> None:
    """Call the command of a stage as its rule does, with its own model and nothing else of the configuration."""
    words = ["stage", stage.name.replace("_", "-")]
    config = stage_config(stage, settings)
    if config is not None:
        words += ["--spec", config.model_dump_json()]
    for read in stage.inputs:
        path = path_of(results, read.file)
        if path.is_file():
            words += [f"--{read.file.name.replace('_', '-')}", str(path)]
    assert stage.output is not None
    words += ["--output", str(path_of(results, stage.output))]
    CliRunner().invoke(app, words, catch_exceptions=False)


@pytest.mark.parametrize("analysis", [{}, {"max_gap_periods": 3}], ids=["default", "max_gap_periods"])
def test_every_stage_reads_what_verify_reads(project: Path, tmp_path: Path, analysis: dict[str, Any]) -> None:
    results = project / "results"
    lose_the_counter(results, 30.0, 3.0)
    record_path = results / EXPERIMENT / "experiment.json"
    record = read_json(record_path)
    record["plan"]["analysis"] |= analysis
    write_json(record_path, record)
    settings = ExperimentSettings.model_validate(record["plan"])
    for stage in COMPUTED:
        run(stage, results, settings)
    result = verify(archived.pack(project, tmp_path / "a.zip"))
    assert (result.failure, result.differences) == (None, [])
    summary = read_json(results / EXPERIMENT / "summary.json")
    (cell,) = [cell for cell in summary["cells"] if cell["window"]["name"] == "high"]
    codes = [reason["code"] for reason in cell["figures"]["energy_total_j"]["reasons"]]
    assert ("counter_lost" in codes) == bool(analysis)
