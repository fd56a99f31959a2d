"""The stage `estimate` on synthetic sessions: loads and energies counted by hand, and what is not known is said."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic

from inference_energy.config.analysis import AnalysisConfig, EstimateConfig, ImpactConfig
from inference_energy.contracts.io import read_json, write_json
from inference_energy.errors import InputError
from inference_energy.estimate.calibration import EnergyCalibration, parse_calibration, shipped_calibration
from inference_energy.estimate.calibration_fit import fit_table
from inference_energy.estimate.reference_rows import read_rows, rows_of_summaries
from inference_energy.estimate.session_estimates import estimate_session
from inference_energy.estimate.session_inputs import read_served_model
from inference_energy.estimate.shapes.config_json import catalogue_models
from inference_energy.stages.chain import RawSession, session_parts

UUID = "GPU-0"
ARCHITECTURE = catalogue_models()["Llama-3.1-8B"]["config"]
ENVIRONMENT = {"gpus": [{"name": "NVIDIA H100 80GB HBM3", "uuid": UUID, "power_limit_enforced_w": 700.0}]}
MODEL = {"name": "llama", "architecture": ARCHITECTURE, "missing": {}}
WINDOWS = (
    synthetic.WindowSpec("eight", process="closed", rate_qps=None, concurrency=8),
    synthetic.WindowSpec("prefill", "prefill", "prefill", "closed", None, 2, 25.0, (1500, 2000), (1, 1)),
)


class Recorded:
    """A session on disk, and its estimates as the pipeline makes them."""

    def __init__(self, root: Path, **changes: Any) -> None:
        truth = synthetic.build_session(root, **{"windows": WINDOWS, **changes})
        self.windows = truth.windows
        self.plan = synthetic.plan([truth])
        self.files = RawSession.below(root, "bench", "base", "small")
        self.write(MODEL, ENVIRONMENT)

    def write(self, model: dict[str, Any], environment: dict[str, Any]) -> None:
        write_json(self.files.model, model)
        write_json(self.files.environment, environment)

    def session(self, **changes: Any) -> None:
        write_json(self.files.session, {**read_json(self.files.session), **changes})

    def estimates(self, calibration: EnergyCalibration | None = None, **config: Any) -> dict[str, Any]:
        analysis = AnalysisConfig.model_validate(self.plan["analysis"])
        parts = session_parts(self.files, analysis, ImpactConfig.model_validate(self.plan["impact"]))
        found = estimate_session(
            session=self.files.session,
            model=self.files.model,
            environment=self.files.environment,
            requests=self.files.requests,
            server_metrics=self.files.server_metrics,
            steady=parts.steady,
            energy=parts.energy,
            config=EstimateConfig(**config),
            calibration=calibration,
        )
        return dict(json.loads(json.dumps(found, allow_nan=False)))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Not to be changed."""
    return Recorded(tmp_path_factory.mktemp("raw"))


@pytest.fixture
def own(tmp_path: Path) -> Recorded:
    """To be changed."""
    return Recorded(tmp_path)


def test_steady_windows_alone_are_estimated(recorded: Recorded) -> None:
    found = recorded.estimates()
    assert list(found["windows"]) == ["eight"]
    assert found["grade"] == "modelled"
    assert (found["gpu"]["name"], found["model"]["parameters"]) == ("H100-SXM", 8_030_261_248)
    assert found["unknown"] == []


def test_the_load_is_that_of_the_window(recorded: Recorded) -> None:
    load = recorded.estimates()["windows"]["eight"]["load"]
    span = recorded.windows["eight"]
    rows = pd.read_parquet(recorded.files.requests)
    rows = rows[(rows["cell"] == "eight") & rows["last_token_ns"].between(span["start_ns"], span["end_ns"] - 1)]
    assert load["input_tokens"] == pytest.approx(rows["prompt_tokens"].mean())
    assert load["output_tokens"] == pytest.approx(rows["completion_tokens"].mean())
    middles = rows["prompt_tokens"] + rows["completion_tokens"] / 2
    assert load["context_tokens"] == pytest.approx(np.average(middles, weights=rows["completion_tokens"]))
    assert load["ttft_s"] == pytest.approx((rows["first_token_ns"] - rows["sent_ns"]).mean() / 1e9)
    assert load["throughput_tokens_per_s"] == pytest.approx(span["output_tokens"] / span["duration_s"], rel=0.01)
    # Eight users, each of whom waits a moment between requests.
    assert load["batch"] == pytest.approx(8, abs=0.2)


def test_every_estimator_stands_beside_the_measured_energy(recorded: Recorded) -> None:
    window = recorded.estimates()["windows"]["eight"]
    span = recorded.windows["eight"]
    measured = window["measured"]
    assert measured["energy_per_output_token_j"] == pytest.approx(span["energy_j"] / span["output_tokens"], rel=0.01)
    assert (measured["boundary"], measured["basis"]) == ("gpu", "total")
    assert len(window["estimates"]) == 9
    for row in window["estimates"]:
        assert row["ratio"] == pytest.approx(row["compared_j"] / measured["energy_per_output_token_j"]), row["id"]


def test_tdp_by_hand(recorded: Recorded) -> None:
    found = recorded.estimates()
    window = found["windows"]["eight"]
    expected = 700 / window["load"]["throughput_tokens_per_s"]
    assert window["estimates"][0]["energy_per_output_token_j"] == pytest.approx(expected)
    score = found["scores"]["tdp"]
    assert score["rows"] == 1
    assert score["mape"] == pytest.approx(abs(window["estimates"][0]["ratio"] - 1))


def test_only_the_gpus_count_where_more_was_measured(tmp_path: Path) -> None:
    sources = (
        *(synthetic.Source(**{**source.__dict__, "share": 0.8 * source.share}) for source in synthetic.GPU),
        synthetic.Source("rapl", "counter", "package-0", "cpu_package", 0.2, "same"),
    )
    recorded = Recorded(tmp_path, sources=sources)
    span = recorded.windows["eight"]
    measured = recorded.estimates()["windows"]["eight"]["measured"]
    each = span["energy_j"] / span["output_tokens"]
    assert measured["energy_per_output_token_j"] == pytest.approx(0.8 * each, rel=0.01)


def test_a_session_without_gpu_says_so(own: Recorded) -> None:
    own.write(MODEL, {"gpus": None})
    found = own.estimates()
    assert found["windows"] == {}
    assert found["scores"] == {}
    assert "no GPU" in found["unknown"][0]


@pytest.mark.parametrize(
    ("model", "word"),
    [
        ({"name": "llama"}, "config.json"),
        ({"name": "llama", "architecture": None, "missing": {"architecture": "it was attached"}}, "it was attached"),
        ({"name": "llama", "architecture": {"vocab_size": 128, "model_type": "llama"}}, "num_hidden_layers"),
    ],
)
def test_an_unknown_model_is_said(own: Recorded, model: dict[str, Any], word: str) -> None:
    own.write(model, ENVIRONMENT)
    found = own.estimates()
    assert word in found["unknown"][0]
    assert found["windows"] == {}


def test_an_unknown_gpu_can_be_named(own: Recorded) -> None:
    own.write(MODEL, {"gpus": [{"name": "NVIDIA H900", "uuid": UUID}]})
    assert "estimate.gpu" in own.estimates()["unknown"][0]
    found = own.estimates(gpu="H200")
    assert found["unknown"] == []
    assert found["gpu"]["name"] == "H200"
    rows = {row["id"]: row for row in found["windows"]["eight"]["estimates"]}
    assert rows["energy-roofline"]["unavailable"]
    assert found["scores"]["energy-roofline"]["rows"] == 0
    assert found["scores"]["energy-roofline"]["unavailable"]
    with pytest.raises(InputError, match=r"estimate\.gpu"):
        own.estimates(gpu="H900")


def test_a_window_whose_energy_is_not_given_is_not_scored(own: Recorded) -> None:
    rows = pd.read_parquet(own.files.requests)
    rows.loc[rows["cell"] == "eight", "completion_tokens"] *= 2
    from inference_energy.contracts import requests
    from inference_energy.contracts.io import write_table

    write_table(own.files.requests, rows, requests.SCHEMA, clock_anchor=synthetic.ANCHOR)
    found = own.estimates()
    window = found["windows"]["eight"]
    assert window["measured"]["energy_per_output_token_j"] is None
    assert window["measured"]["unavailable"]
    assert all(row["ratio"] is None for row in window["estimates"])
    assert found["scores"]["tdp"]["rows"] == 0
    assert found["scores"]["tdp"]["unavailable"]


def test_a_calibration_is_not_scored_on_a_window_it_was_fitted_to(own: Recorded) -> None:
    measured = own.estimates()["windows"]["eight"]["measured"]["energy_per_output_token_j"]
    record = copy.deepcopy(shipped_calibration("h100-published").record)
    record |= {"name": "mine", "fitted_j": [0.5, measured]}
    found = own.estimates(parse_calibration(record, "mine"))
    row = next(row for row in found["windows"]["eight"]["estimates"] if row["id"] == "energy-roofline")
    assert row["energy_per_output_token_j"] is not None
    assert row["ratio"] is None
    assert "in sample" in row["not_scored"]
    assert found["scores"]["energy-roofline"]["rows"] == 0
    assert found["calibration"] == "mine"


def launched(*flags: str, gpus: list[str] | None = None) -> dict[str, Any]:
    return {"launch": {"command": ["python", "-m", "vllm", *flags], "gpus": gpus or [UUID]}}


def test_gpus_share_a_copy_and_copies_share_the_load(own: Recorded) -> None:
    cards = [{"name": "NVIDIA H100 80GB HBM3", "uuid": f"GPU-{n}", "power_limit_enforced_w": 700.0} for n in range(4)]
    own.write(MODEL, {"gpus": cards})
    words = ("--tensor-parallel-size", "2", "--data-parallel-size=2")
    own.session(**launched(*words, gpus=[card["uuid"] for card in cards]))
    found = own.estimates()
    assert (found["gpus_per_copy"], found["copies"]) == (2, 2)
    window = found["windows"]["eight"]
    # Two copies, each with half the tokens, on two GPUs: as 4 GPUs for all.
    expected = 700 * 4 / window["load"]["throughput_tokens_per_s"]
    assert window["estimates"][0]["energy_per_output_token_j"] == pytest.approx(expected)


def test_flags_of_the_server_change_the_shape() -> None:
    plain = read_served_model(MODEL, ENVIRONMENT, launched(), None).shape
    fp8 = read_served_model(
        MODEL, ENVIRONMENT, launched("--kv-cache-dtype", "fp8_e4m3", "--quantization=fp8"), None
    ).shape
    assert plain is not None
    assert fp8 is not None
    assert fp8.kv_bytes_per_token == plain.kv_bytes_per_token / 2
    assert fp8.weights.name == "fp8"


def test_slices_and_mixed_cards_are_not_estimated() -> None:
    assert "MIG" in read_served_model(MODEL, ENVIRONMENT, launched(gpus=["MIG-1"]), None).unknown[0]
    mixed = {"gpus": [{"name": "NVIDIA H100 80GB HBM3", "uuid": "a"}, {"name": "NVIDIA L4", "uuid": "b"}]}
    assert "different kinds" in read_served_model(MODEL, mixed, launched(gpus=["a", "b"]), None).unknown[0]
    assert read_served_model(MODEL, mixed, launched(gpus=["b"]), None).gpu is not None


def test_a_simulated_gpu_has_the_data_sheet_of_the_one_it_stands_for() -> None:
    bench = {"simulated": True, "gpus": [{"name": "NVIDIA H100 80GB HBM3 (simulated)", "uuid": UUID}]}
    found = read_served_model(MODEL, bench, launched(), None)
    assert found.gpu is not None
    assert found.gpu.name == "H100-SXM"
    assert "simulated" in found.notes[0]


def test_a_lowered_power_limit_is_noted() -> None:
    capped = {"gpus": [{**ENVIRONMENT["gpus"][0], "power_limit_enforced_w": 400.0}]}
    assert "400 W" in read_served_model(MODEL, capped, launched(), None).notes[0]
    assert read_served_model(MODEL, ENVIRONMENT, launched(), None).notes == ()


def test_finished_runs_are_a_table_that_can_be_fitted(tmp_path: Path) -> None:
    """Two models on one card, each with loads of two sizes, a window of prompts and one that is not steady enough."""
    summaries = []
    windows = (
        synthetic.WindowSpec("few", process="closed", rate_qps=None, concurrency=4),
        synthetic.WindowSpec("many", process="closed", rate_qps=None, concurrency=16),
        synthetic.WindowSpec("prompts", "prefill", "prefill", "closed", None, 2, 25.0, (1500, 2000), (2, 2)),
        synthetic.WindowSpec("answers", "decode", "decode", "closed", None, 8, 25.0, (16, 16), (300, 400)),
    )
    for name, scale in (("Qwen3-8B", 1.0), ("Qwen3-32B", 3.0)):
        recorded = Recorded(tmp_path / name, windows=windows, energy_model=(300.0 * scale, 0.006 * scale, 0.08 * scale))
        recorded.write({"name": name, "architecture": catalogue_models()[name]["config"], "missing": {}}, ENVIRONMENT)
        summaries.append({"experiment": name, "estimates": [recorded.estimates()]})
    table = rows_of_summaries(summaries)
    assert len(table["rows"]) == 8
    write_json(tmp_path / "rows.json", table)
    rows = read_rows(tmp_path / "rows.json")
    assert {row.shape.name for row in rows} == {"Qwen3-8B", "Qwen3-32B"}
    (prompts,) = [row for row in rows if row.label.endswith("Qwen3-8B base.prompts")]
    assert prompts.is_prefill
    first = summaries[0]["estimates"][0]["windows"]["few"]
    (few,) = [row for row in rows if row.label.endswith("Qwen3-8B base.few")]
    assert few.output_j == pytest.approx(first["measured"]["energy_per_output_token_j"])
    assert few.batch == pytest.approx(4, abs=0.2)
    content = fit_table(tmp_path / "rows.json", "sweep")
    assert content["prompts"] == "apart"
    assert content["rows"] == 8
    again = next(row for row in rows if row.label.endswith("Qwen3-32B base.many"))
    assert again.output_j == pytest.approx(min(content["fitted_j"], key=lambda one: abs(one - again.output_j)))


def test_runs_that_give_no_row_say_why(own: Recorded) -> None:
    own.write(MODEL, {"gpus": None})
    with pytest.raises(InputError, match="no GPU"):
        rows_of_summaries([{"experiment": "cpu", "estimates": [own.estimates()]}])
    with pytest.raises(InputError, match="no estimates"):
        rows_of_summaries([{"experiment": "old"}])
