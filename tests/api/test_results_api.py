"""Results of an experiment as tables, and estimates, by the Python API."""

import doctest
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import inference_energy
from inference_energy import estimate_energy, read_results
from inference_energy.api import estimates, results
from inference_energy.cli.main import app
from inference_energy.contracts import power, receipts, requests
from inference_energy.contracts.documents.document import write_document
from inference_energy.contracts.documents.energy import DeviceEnergy
from inference_energy.contracts.documents.experiment import (
    SummaryDocument,
    SummaryLaunch,
    SummarySession,
    SummaryWarmup,
    SummaryWindow,
    ToolkitVersion,
    TrimmedTimes,
)
from inference_energy.contracts.documents.windows import (
    CellTotals,
    SteadinessVerdict,
    TokenReconciliation,
    WarmupThroughput,
    WindowChecks,
    WindowCounts,
    WindowLoad,
)
from inference_energy.contracts.figure import Figure, Reason, missing_figure
from inference_energy.contracts.io import write_table
from inference_energy.errors import InputError
from inference_energy.provenance.manifest import NAME, Entry, Manifest

SECOND = 1_000_000_000
START_NS = 100 * SECOND
DURATION_S = 10
POWER_W = 300.0
FIGURES = {
    "power_mean_w": Figure(POWER_W, "W", "none", "gpu", "counter", interval_95=(291.0, 309.0)),
    "energy_total_per_output_token_j": Figure(0.5, "J/token", "total", "gpu", "counter"),
    "energy_active_per_output_token_j": missing_figure(
        "J/token", "active", "gpu", "counter", Reason("cold_idle_missing", "No cold idle.")
    ),
}


def summary() -> SummaryDocument:
    window = SummaryWindow(
        cell="main.q2",
        machine="box",
        session="main",
        window=TrimmedTimes(name="q2", start_ns=START_NS, end_ns=START_NS + DURATION_S * SECOND),
        server="vllm",
        model="llama",
        kind="steady",
        load=WindowLoad(kind="steady", workload="chat", arrival={"process": "poisson"}, text="Poisson 2 req/s, chat"),
        figures=FIGURES,
        devices=list[DeviceEnergy](),
        counts=WindowCounts(
            output_tokens=300,
            prompt_tokens=30,
            cached_tokens=0,
            cached_tokens_known=True,
            scheduled=3,
            started=3,
            finished=3,
            failed=0,
            aborted=0,
            without_usage=0,
            engine_steps=None,
        ),
        checks=WindowChecks(
            steadiness=SteadinessVerdict(
                judged=False,
                steady=None,
                blocks=1,
                why_not_judged="too short",
                trends={},
                stationarity={},
                required=True,
            ),
            reconciliation=TokenReconciliation(generated=None, prompt=None, cached=None),
            whole_cell=CellTotals(why="no counters"),
            prompt_lengths=None,
            client_lag_s=None,
            limits=None,
            preemptions=None,
        ),
        client=None,
    )
    session = SummarySession(
        machine="box",
        session="main",
        server="vllm",
        launch=SummaryLaunch(ok=True, mode="launch", ready_after_s=1.0, server_version="0", reasons=[]),
        warmup=SummaryWarmup(
            requests=0, failed=0, throughput=WarmupThroughput(quarters_tokens_per_s=[], settled=None), reasons=[]
        ),
        client=None,
        calibration=None,
    )
    return SummaryDocument(
        version=1,
        experiment="default",
        machines=["box"],
        toolkit=ToolkitVersion(version="0"),
        factors=None,
        cells=[window],
        idle=[],
        sessions=[session],
        fits=[],
        notes=[],
    )


def rows(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A results folder with one session of one window, with round numbers."""
    root = tmp_path / "results"
    write_document(root / "default/summary.json", summary())
    ends_ns = START_NS + (1 + np.arange(3)) * SECOND
    raw, derived = root / "raw/box/sessions/main", root / "derived/box/main"
    write_table(
        raw / "requests.parquet",
        rows(request_id=np.arange(3), cell="q2", status="ok", last_token_ns=ends_ns, completion_tokens=100),
        requests.SCHEMA,
    )
    write_table(
        derived / "receipts.parquet",
        rows(request_id=np.arange(3), cell="q2", policy="completion_tokens", energy_j=50.0),
        receipts.SCHEMA,
    )
    write_table(
        raw / "power.parquet",
        rows(timestamp_ns=ends_ns, source="nvml", device="GPU-0", domain="gpu", power_average_w=POWER_W),
        power.SCHEMA,
    )
    return root


def test_the_examples_of_the_docstrings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert doctest.testmod(results, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0
    assert doctest.testmod(estimates).failed == 0


def test_the_root_gives_them_again_and_again() -> None:
    assert inference_energy.read_results is results.read_results
    assert inference_energy.estimate_energy is inference_energy.estimate_energy is estimates.estimate_energy


def test_what_a_notebook_shows_of_results_is_a_line(folder: Path) -> None:
    results = read_results(folder / "default")
    assert repr(results).startswith("ExperimentResults('default', 1 windows of 1 session, folder=")
    shown = repr(results.summary)
    assert shown.startswith("SummaryDocument(version=1, experiment='default', machines=[1 x str]")
    assert "cells=[1 x SummaryWindow]" in shown
    assert len(shown) < 1000
    assert "load=WindowLoad(...), figures={" in repr(results.summary.cells[0])


def test_figures_have_their_interval_or_their_reasons(folder: Path) -> None:
    table = read_results(folder / "default").figures.set_index("name")
    assert list(table.loc["power_mean_w", ["value", "low", "high", "unit"]]) == [300.0, 291.0, 309.0, "W"]
    absent = table.loc["energy_active_per_output_token_j"]
    assert (absent["valid"], absent["reasons"]) == (False, "cold_idle_missing: No cold idle.")
    assert np.isnan(absent["value"])


def test_tables_name_machine_and_session(folder: Path) -> None:
    found = read_results(folder / "default")
    for table in (found.requests, found.receipts, found.power, found.windows, found.figures):
        assert set(table["machine"]) == {"box"}
        assert set(table["session"]) == {"main"}
    assert found.metrics.empty


def test_what_is_no_finished_experiment_is_refused_with_what_to_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"summary\.json: no such file: name the result folder"):
        read_results(tmp_path)
    with pytest.raises(InputError, match=r"absent: no such folder: name the result folder"):
        read_results(tmp_path / "absent")
    with pytest.raises(InputError, match=r"summary\.json: a file: name the result folder"):
        read_results(folder / "default/summary.json")
    with pytest.raises(InputError, match=r"absent\.zip: no such file"):
        read_results(tmp_path / "absent.zip")
    (folder / "default/summary.json").rename(folder / "default/experiment.json")
    with pytest.raises(InputError, match=r"summary\.json: .*has not ended; `snakemake` goes on"):
        read_results(folder / "default")


def test_tables_without_their_raw_files_say_where_these_belong(folder: Path) -> None:
    found = read_results(folder / "default")
    (folder / "raw/box/sessions/main/power.parquet").unlink()
    with pytest.raises(InputError, match=r"power\.parquet: no such file: .* raw/ and derived/ beside"):
        found.power  # noqa: B018


@pytest.mark.parametrize("command", ["show", "metrics"])
def test_commands_that_take_no_archive_say_what_does(folder: Path, tmp_path: Path, command: str) -> None:
    path = zipped(folder, tmp_path / "default.zip", damaged=False)
    result = CliRunner().invoke(app, [command, str(path)])
    assert isinstance(result.exception, InputError)
    assert f"`inference-energy verify {path}`" in str(result.exception)
    assert "unpack" in str(result.exception)


@pytest.mark.parametrize("damaged", [False, True])
def test_an_archive_gives_what_its_folder_gives(folder: Path, tmp_path: Path, damaged: bool) -> None:
    path = zipped(folder, tmp_path / "default.zip", damaged=damaged)
    if damaged:
        with pytest.raises(InputError, match=r"summary\.json: changed"):
            read_results(path)
        return
    archive, plain = read_results(path), read_results(folder / "default")
    for name in ("windows", "figures", "requests", "receipts", "power"):
        pd.testing.assert_frame_equal(getattr(archive, name), getattr(plain, name))


def test_estimates_have_a_row_for_every_method() -> None:
    table = estimate_energy("Llama-3.1-8B", "H100-SXM", batch=64, throughput=3000.0).table
    assert table.loc["tdp", "energy_per_output_token_j"] == pytest.approx(700 / 3000)
    assert "energy-roofline" in table.index


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"batch": 0}, "batch: 0: write a number above 0"),
        ({"batch": "64"}, "batch: '64': write a number above 0"),
        ({"throughput": float("inf")}, "throughput: inf: write a number above 0"),
        ({"input_tokens": float("nan")}, "input_tokens: nan: write a number, 0 or more"),
        ({"tensor_parallel": 1.5}, "tensor_parallel: 1.5: write a whole number"),
        ({"model": "none"}, "model: none: neither a file nor a model"),
        ({"model": Path("absent.json")}, "model: absent.json: neither a file nor a model"),
        ({"gpu": "H1000"}, "gpu: H1000 is not in the table"),
        ({"precision": "fp6"}, "precision: write one of bf16"),
        ({"kv_precision": "fp6"}, "kv_precision: write one of bf16"),
        ({"calibration": "none"}, "calibration: none: write the path"),
        ({"calibration": Path("none.json")}, "calibration: none.json: cannot be read: no such file"),
        ({"baseline": "none.csv"}, "baseline: none.csv: cannot be read: no such file"),
        ({"baseline": 5}, "baseline: 5: write a text"),
        ({"model": None}, "model: None: write a text"),
        ({"gpu": 5}, "gpu: 5: write a text"),
        ({"kv_precision": []}, "kv_precision: []: write a text"),
        ({"tensor_parallel": 10**400}, "tensor_parallel: a number above all limits: write a whole number"),
        ({"batch": True}, "batch: True: write a number above 0"),
    ],
)
def test_a_wrong_argument_of_an_estimate_is_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        estimate_energy(**{"model": "Llama-3.1-8B", "gpu": "H100-SXM", **arguments})
    assert str(caught.value).startswith(said)


def test_estimates_name_missing_inputs_as_arguments_and_never_as_options() -> None:
    found = estimate_energy("Llama-3.1-8B", "H100-SXM")
    texts = [row.unavailable or "; ".join(row.assumptions) for row in found.estimates]
    assert any("(batch)" in text for text in texts)
    assert any("(throughput)" in text for text in texts)
    assert found.comparison.prefill.unavailable == "needs the prompt's length (input_tokens)"
    beyond = estimate_energy("Llama-3.1-70B", "H100-SXM").comparison.prefill.unavailable
    assert beyond is not None and "more GPUs (tensor_parallel)" in beyond
    assert "--" not in repr(found.comparison)


def zipped(folder: Path, path: Path, *, damaged: bool) -> Path:
    """An archive of a results folder, in which one file may differ from the manifest."""
    members = {
        f"results/{file.relative_to(folder)}": file.read_bytes() for file in folder.rglob("*.*") if file.is_file()
    }
    entries = [
        Entry(path=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in members.items()
    ]
    manifest = Manifest(experiment="default", created_utc="2026-01-01T00:00:00+00:00", code={}, members=entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content + (b" " if damaged and name.endswith("summary.json") else b""))
        archive.writestr(NAME, manifest.text())
    return path


@pytest.mark.parametrize("path", [None, 5, 3.5, True, b"results", [], {}])
def test_what_is_no_path_of_results_is_refused_by_its_type(path: Any) -> None:
    with pytest.raises(TypeError, match=f"path: a text or a Path is expected, not {type(path).__name__}"):
        read_results(path)


@pytest.mark.parametrize("path", ["a\0b", "a\0b.zip", "x" * 300, "x" * 300 + ".zip"])
def test_a_path_that_cannot_be_one_is_refused(path: str) -> None:
    with pytest.raises(InputError):
        read_results(path)
