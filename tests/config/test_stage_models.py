"""A stage takes exactly the keys of its model: no default stands in for a missing one, and no other is taken."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_energy.config.analysis import (
    AnalysisConfig,
    AttributionConfig,
    EnergyConfig,
    EstimateConfig,
    FitConfig,
    ImpactConfig,
    Slo,
    SteadyLoadConfig,
)
from inference_energy.config.base import Section
from inference_energy.config.loader import read_merged, validate
from inference_energy.config.stage_model import read_dump
from inference_energy.errors import InputError

ROOT = Path(__file__).parents[2]
MODELS: list[type[Section]] = [SteadyLoadConfig, EnergyConfig, AttributionConfig, FitConfig, EstimateConfig]


def missing(model: type[Section], spec: dict[str, Any]) -> str:
    with pytest.raises(InputError) as refused:
        read_dump(model, spec, "section")
    return str(refused.value)


@pytest.mark.parametrize("model", MODELS)
def test_a_missing_key_is_refused_by_name(model: type[Section]) -> None:
    whole = model().model_dump()
    assert read_dump(model, whole, "section") == model()
    for key in whole:
        spec = {name: value for name, value in whole.items() if name != key}
        assert missing(model, spec) == f"--spec: section.{key}: missing"


@pytest.mark.parametrize("model", MODELS)
def test_another_key_is_refused_by_name(model: type[Section]) -> None:
    assert "other" in missing(model, {**model().model_dump(), "other": 1})


def test_a_missing_key_of_an_inner_section_is_refused_by_its_path() -> None:
    spec = SteadyLoadConfig().model_dump()
    del spec["steadiness"]["significance"]
    assert missing(SteadyLoadConfig, spec) == "--spec: section.steadiness.significance: missing"
    spec = {"carbon": {"zone": "DE", "intensity_g_per_kwh": 1, "basis": "direct", "source": "none"}}
    assert "section.pue: missing" in missing(ImpactConfig, spec)


def test_every_key_of_analysis_is_read_by_a_stage_but_the_calibrations_path() -> None:
    read = {
        key for model in (SteadyLoadConfig, EnergyConfig, AttributionConfig, FitConfig) for key in model.model_fields
    }
    assert set(AnalysisConfig.model_fields) - read == {"calibration"}


def test_limits_is_taken_for_slo_in_an_archives_plan(capsys: pytest.CaptureFixture[str]) -> None:
    old = AnalysisConfig.model_validate({"limits": {"ttft_s": 0.5}})
    assert old == AnalysisConfig.model_validate({"slo": {"ttft_s": 0.5}})
    assert capsys.readouterr().err == ""  # archives have it: nothing is to be renamed there


def test_limits_is_taken_for_slo_in_every_layer_of_a_configuration(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    above, top = tmp_path / "above.yaml", tmp_path / "top.yaml"
    above.write_text("analysis: {limits: {ttft_s: 0.5, tpot_s: 0.05}}")
    top.write_text("analysis: {slo: {ttft_s: 1.0}}")
    slo = read_merged([ROOT / "config.yaml", above, top]).analysis.slo
    assert slo == Slo(ttft_s=1.0, tpot_s=0.05)
    (line,) = capsys.readouterr().err.splitlines()
    assert "analysis.limits" in line
    assert "analysis.slo" in line


def test_limits_laid_over_slo_by_snakemake_wins(capsys: pytest.CaptureFixture[str]) -> None:
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    raw["analysis"] |= {"slo": {"ttft_s": 1.0, "tpot_s": 0.05}, "limits": {"ttft_s": 0.5}}
    assert validate(raw).analysis.slo == Slo(ttft_s=0.5, tpot_s=0.05)
    assert "analysis.slo" in capsys.readouterr().err
