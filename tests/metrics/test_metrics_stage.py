"""The stage over recorded sessions of known truth, and the command on its result."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inference_energy.analysis.attribution import attribute_session
from inference_energy.analysis.figures import figure_from_dict
from inference_energy.cli.main import app
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts import receipts
from inference_energy.contracts.documents.document import read_document
from inference_energy.contracts.documents.energy import EnergyDocument
from inference_energy.contracts.io import read_json, write_json, write_table
from inference_energy.errors import InputError
from inference_energy.plan.stage_configs import ExperimentSettings
from inference_energy.stages.chain import RawSession
from inference_energy.stages.registry import STAGES, stage_config


@pytest.fixture(scope="module")
def found(results: Path) -> dict:
    return read_json(results / "synthetic/summary.json")["metrics"]


def cell(found: dict, name: str) -> dict:
    return next(each["figures"] for each in found["cells"] if each["cell"] == name)


def test_each_window_has_every_metric(found: dict) -> None:
    assert [each["cell"] for each in found["cells"]] == ["base.a", "base.b", "base.c", "base.quiz"]
    names = {tuple(each["figures"]) for each in found["cells"]}
    assert len(names) == 1
    for each in found["cells"]:
        for content in each["figures"].values():
            figure = figure_from_dict(content)
            assert figure.valid or figure.reasons


def test_the_sweep_is_of_one_workload(found: dict) -> None:
    first, second = found["sweeps"]
    assert (first["workload"], first["levels"]) == ("chat", ["base.a", "base.b", "base.c"])
    assert first["figures"]["energy_proportionality"]["valid"]
    # One request a second, all day, between no load and the first level.
    daily = first["figures"]["daily_energy_kwh"]
    low, high = first["hours"][0]["power_w"], first["grid"][-1]["power_w"]
    assert first["idle_w"] < low < high
    assert daily["value"] == pytest.approx(low * 24 / 1000)
    assert [each["code"] for each in second["figures"]["energy_proportionality"]["reasons"]] == ["no_load_sweep"]


def test_the_quiz_is_graded_and_the_others_say_why_not(found: dict) -> None:
    quiz = cell(found, "base.quiz")
    assert quiz["accuracy_share"]["value"] == pytest.approx(0.75, abs=0.02)
    assert quiz["energy_total_per_correct_answer_j"]["valid"]
    assert quiz["energy_total_per_correct_answer_j"]["interval_95"]
    other = cell(found, "base.a")
    assert [each["code"] for each in other["accuracy_share"]["reasons"]] == ["answers_not_kept"]
    # The quiz tells the quality of the server, so also of its other windows.
    assert other["goodput_total_requests_per_kwh_at_floor"]["valid"]


def test_the_stage_writes_what_the_recomputation_gives(results: Path, found: dict, tmp_path: Path) -> None:
    raw, derived = results / "raw/bench", results / "derived/bench"
    files = RawSession.below(results / "raw", "bench", "base", "small")
    plan = read_json(results / "synthetic/experiment.json")["plan"]
    config = AnalysisConfig.model_validate(plan["analysis"])
    paid = attribute_session(
        requests=files.requests, energy=read_document(derived / "base/energy.json", EnergyDocument), config=config
    )
    write_table(tmp_path / "receipts.parquet", paid, receipts.SCHEMA)
    spec = stage_config(STAGES["metrics"], ExperimentSettings.model_validate(plan))
    assert spec is not None
    words = ["stage", "metrics", "--spec", spec.model_dump_json(), "--output", str(tmp_path / "metrics.json")]
    words += ["--receipts", str(tmp_path / "receipts.parquet"), "--fit", str(derived / "fits/small.json")]
    words += ["--model", str(raw / "servers/small/model.json"), "--requests", str(files.requests)]
    words += ["--prompts", str(files.requests.with_name("prompts.parquet"))]
    for name in ("steady-load", "energy", "carbon"):
        words += [f"--{name}", str(derived / "base" / f"{name.replace('-', '_')}.json")]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert read_json(tmp_path / "metrics.json") == json.loads(json.dumps(found))
    with pytest.raises(InputError, match="--energy: one file for each of the 2"):
        CliRunner().invoke(app, [*words, "--steady-load", str(derived)], catch_exceptions=False)


def run(results: Path, *words: str) -> str:
    done = CliRunner().invoke(app, ["metrics", str(results / "synthetic"), *words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_the_command_prints_tables_and_no_number_where_there_is_none(results: Path) -> None:
    text = run(results)
    for heading in ("Work for energy", "Energy of a request", "Load proportionality", "Quality", "Pareto front"):
        assert heading in text
    assert "Receipts by completion_tokens do not say which part is that of prefill." in text
    assert not re.search(r"\b(nan|inf|None)\b", text)


def test_as_json_it_is_what_the_summary_holds(results: Path, found: dict) -> None:
    assert json.loads(run(results, "--json")) == found


def test_another_front_and_another_day(results: Path, tmp_path: Path) -> None:
    pair = "efficiency_total_tokens_per_j,e2e_p90_s"
    fronts = json.loads(run(results, "--json", "--pareto", pair))["fronts"]
    assert [front["figures"] for front in fronts] == [pair.split(",")]
    assert fronts[0]["larger_is_better"] == [True, False]
    path = tmp_path / "day.csv"
    path.write_text("hour,requests\n" + "".join(f"{hour},7200\n" for hour in range(24)))
    again = json.loads(run(results, "--json", "--traffic", str(path), "--replicas", "2"))["sweeps"][0]
    # Two servers with one request a second each: twice what the configured day takes.
    one = json.loads(run(results, "--json"))["sweeps"][0]
    daily = [each["figures"]["daily_energy_kwh"]["value"] for each in (again, one)]
    assert daily[0] == pytest.approx(2 * daily[1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--pareto", "tpot_p90_s"), "write two figures"),
        (("--pareto", "tpot_p90_s,duration_s"), "duration_s: neither more nor less"),
        (("--pareto", "tpot_p90_s,energy_per_dream_j"), "no window has a figure energy_per_dream_j"),
        (("--replicas", "2"), "--replicas: it shares a --traffic"),
        (("--traffic", "nowhere.csv"), "--traffic: nowhere.csv cannot be read"),
    ],
)
def test_wrong_use_says_what_to_write(results: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(results, *words)


def test_a_summary_without_metrics(results: Path, tmp_path: Path) -> None:
    old = read_json(results / "synthetic/summary.json")
    del old["metrics"]
    write_json(tmp_path / "old/summary.json", old)
    with pytest.raises(InputError, match="holds no metrics"):
        CliRunner().invoke(app, ["metrics", str(tmp_path / "old")], catch_exceptions=False)
