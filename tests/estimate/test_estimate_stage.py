"""The stage `estimate` on synthetic sessions: loads and energies counted by hand, and what is not known is said."""

import copy
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import synthetic

from inference_energy.config.analysis import AnalysisConfig, EstimateConfig, ImpactConfig
from inference_energy.contracts.documents.document import write_document
from inference_energy.contracts.documents.experiment import SummaryDocument
from inference_energy.contracts.documents.machine import EnvironmentDocument, ModelDocument
from inference_energy.contracts.documents.session import SessionDocument
from inference_energy.contracts.figure import json_values
from inference_energy.contracts.io import read_json, write_json
from inference_energy.errors import InputError
from inference_energy.estimate.calibration import EnergyCalibration, parse_calibration, shipped_calibration
from inference_energy.estimate.calibration_fit import fit_table
from inference_energy.estimate.reference_rows import read_rows, rows_of_summaries
from inference_energy.estimate.session_estimates import ServedModel, estimate_session, read_served_model
from inference_energy.estimate.shapes.config_json import catalogue_models
from inference_energy.stages.chain import RawSession, session_parts

pytestmark = pytest.mark.slow

UUID = "GPU-0"
ARCHITECTURE = catalogue_models()["Llama-3.1-8B"]["config"]
ENVIRONMENT = {"gpus": [{"name": "NVIDIA H100 80GB HBM3", "uuid": UUID, "power_limit_enforced_w": 700.0}]}
MODEL = {"name": "llama", "architecture": ARCHITECTURE, "missing": {}}
WINDOWS = (
    synthetic.WindowSpec("eight", process="closed", rate_qps=None, concurrency=8),
    synthetic.WindowSpec("prefill", "prefill", "prefill", "closed", None, 2, 25.0, (1500, 2000), (1, 1)),
)


def model_document(facts: dict[str, Any]) -> ModelDocument:
    """A model.json with these facts; the others are unknown."""
    unknown = dict.fromkeys(ModelDocument.__struct_fields__)
    return msgspec.convert({**unknown, "source": "hub", "missing": {}, **facts}, ModelDocument)


def environment_document(facts: dict[str, Any]) -> EnvironmentDocument:
    """An environment.json with these facts; the others are unknown."""
    unknown = dict.fromkeys(EnvironmentDocument.__struct_fields__)
    return msgspec.convert({**unknown, "simulated": False, "missing": {}, **facts}, EnvironmentDocument)


def session_document(facts: dict[str, Any]) -> SessionDocument:
    """A session.json of a launched server with these facts."""
    plain = {
        "session": "base",
        "machine": "bench",
        "mode": "launch",
        "model": "llama",
        "power": {},
        "windows": {},
        "warmup": None,
        "metrics": None,
        "stop": None,
        "missing": {},
        "clock_anchor": {"monotonic_ns": 0, "unix_ns": 0},
        "server": {"name": "small"},
        "client": None,
    }
    return msgspec.convert({**plain, **facts}, SessionDocument)


def served(model: dict[str, Any], environment: dict[str, Any], session: dict[str, Any]) -> ServedModel:
    return read_served_model(model_document(model), environment_document(environment), session_document(session), None)


class Recorded:
    """A session on disk, and its estimates as the pipeline makes them."""

    def __init__(self, root: Path, **changes: Any) -> None:
        truth = synthetic.build_session(root, **{"windows": WINDOWS, **changes})
        self.windows = truth.windows
        self.plan = synthetic.plan([truth])
        self.files = RawSession.below(root, "bench", "base", "small")
        self.write(MODEL, ENVIRONMENT)

    def write(self, model: dict[str, Any], environment: dict[str, Any]) -> None:
        write_document(self.files.model, model_document(model))
        write_document(self.files.environment, environment_document(environment))

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
        return dict(json_values(found))


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
    return {"launch": {"ready_after_s": 40.0, "command": ["python", "-m", "vllm", *flags], "gpus": gpus or [UUID]}}


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
    plain = served(MODEL, ENVIRONMENT, launched()).shape
    fp8 = served(MODEL, ENVIRONMENT, launched("--kv-cache-dtype", "fp8_e4m3", "--quantization=fp8")).shape
    assert plain is not None
    assert fp8 is not None
    assert fp8.kv_bytes_per_token == plain.kv_bytes_per_token / 2
    assert fp8.weights.name == "fp8"


def test_slices_and_mixed_cards_are_not_estimated() -> None:
    assert "MIG" in served(MODEL, ENVIRONMENT, launched(gpus=["MIG-1"])).unknown[0]
    mixed = {"gpus": [{"name": "NVIDIA H100 80GB HBM3", "uuid": "a"}, {"name": "NVIDIA L4", "uuid": "b"}]}
    assert "different kinds" in served(MODEL, mixed, launched(gpus=["a", "b"])).unknown[0]
    assert served(MODEL, mixed, launched(gpus=["b"])).gpu is not None


def test_a_simulated_gpu_has_the_data_sheet_of_the_one_it_stands_for() -> None:
    bench = {"simulated": True, "gpus": [{"name": "NVIDIA H100 80GB HBM3 (simulated)", "uuid": UUID}]}
    found = served(MODEL, bench, launched())
    assert found.gpu is not None
    assert found.gpu.name == "H100-SXM"
    assert "simulated" in found.notes[0]


def test_a_lowered_power_limit_is_noted() -> None:
    capped = {"gpus": [{**ENVIRONMENT["gpus"][0], "power_limit_enforced_w": 400.0}]}
    assert "400 W" in served(MODEL, capped, launched()).notes[0]
    assert served(MODEL, ENVIRONMENT, launched()).notes == ()


def summary_of(experiment: str, estimates: list[dict[str, Any]] | None) -> SummaryDocument:
    """The summary of an experiment that holds estimates alone."""
    lists: dict[str, Any] = {key: [] for key in ("machines", "cells", "idle", "sessions", "fits", "notes")}
    content = {"version": 1, "experiment": experiment, "toolkit": {"version": "0"}, "factors": None, **lists}
    return msgspec.convert({**content, "estimates": estimates}, SummaryDocument)


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
        summaries.append(summary_of(name, [recorded.estimates()]))
    table = rows_of_summaries(summaries)
    assert len(table["rows"]) == 8
    write_json(tmp_path / "rows.json", table)
    rows = read_rows(tmp_path / "rows.json")
    assert {row.shape.name for row in rows} == {"Qwen3-8B", "Qwen3-32B"}
    (prompts,) = [row for row in rows if row.label.endswith("Qwen3-8B base.prompts")]
    assert prompts.is_prefill
    assert summaries[0].estimates is not None
    first = summaries[0].estimates[0].windows["few"]
    (few,) = [row for row in rows if row.label.endswith("Qwen3-8B base.few")]
    assert few.output_j == pytest.approx(first.measured.energy_per_output_token_j)
    assert few.batch == pytest.approx(4, abs=0.2)
    content = fit_table(tmp_path / "rows.json", "sweep")
    assert content["prompts"] == "apart"
    assert content["rows"] == 8
    again = next(row for row in rows if row.label.endswith("Qwen3-32B base.many"))
    assert again.output_j == pytest.approx(min(content["fitted_j"], key=lambda one: abs(one - again.output_j)))


def test_runs_that_give_no_row_say_why(own: Recorded) -> None:
    own.write(MODEL, {"gpus": None})
    with pytest.raises(InputError, match="no GPU"):
        rows_of_summaries([summary_of("cpu", [own.estimates()])])
    with pytest.raises(InputError, match="no estimates"):
        rows_of_summaries([summary_of("old", None)])
