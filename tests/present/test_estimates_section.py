"""The report's estimates: beside the measured energy, labelled as modelled, and their reasons in their place."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from report_sample import Sample, make_sample

from inference_energy.contracts.figure import json_values
from inference_energy.estimate.compare import EstimateRequest, basis_for, compare_estimates
from inference_energy.estimate.gpus import find_gpu
from inference_energy.estimate.shapes.config_json import shape_of
from inference_energy.present.estimates import estimate_texts, estimates_table, plot_estimates, scores_table
from inference_energy.present.report import write_report

MEASURED_J = 0.2


def window(measured_j: float | None = MEASURED_J, **load: Any) -> dict[str, Any]:
    given = {"batch": 40.0, "input_tokens": 256.0, "output_tokens": 256.0, "throughput": 3000.0, **load}
    request = EstimateRequest(shape_of("Llama-3.1-8B"), find_gpu("H100-SXM"), **given)
    rows = json_values(compare_estimates(request, basis_for(find_gpu("H100-SXM"))).estimates)
    for row in rows:
        point = row["energy_per_output_token_j"]
        compared = point if point is not None else (row["low"] * row["high"]) ** 0.5 if row["low"] else None
        there = compared is not None and measured_j is not None
        row |= {"compared_j": compared, "ratio": compared / measured_j if there else None}
        row["not_scored"] = row["unavailable"]
    return {
        "load": {
            "batch": given["batch"],
            "input_tokens": given["input_tokens"],
            "output_tokens": given["output_tokens"],
            "context_tokens": 384.0,
            "throughput_tokens_per_s": given["throughput"],
            "ttft_s": None,
        },
        "measured": {
            "energy_per_output_token_j": measured_j,
            "boundary": "gpu",
            "basis": "total",
            "grade": "counter",
            "unavailable": None if measured_j else "The load was not steady.",
        },
        "estimates": rows,
    }


def estimates(windows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "machine": "h100-box",
        "session": "sweep",
        "server": "llama",
        "grade": "modelled",
        "architecture": None,
        "calibration_sha256": None,
        "fit_windows": {},
        "scores": {},
        "model": json_values(shape_of("Llama-3.1-8B").facts()),
        "gpu": {"name": "H100-SXM", "tdp_w": 700.0},
        "gpus_per_copy": 1,
        "copies": 1,
        "calibration": "h100-published",
        "unknown": [],
        "notes": [],
        "windows": windows,
        **changes,
    }


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    made = make_sample(tmp_path)
    made.summary["estimates"] = [estimates({"q04": window(), "q16": window(None, throughput=None)})]
    return made


def texts(table: Any) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in table.rows]


def test_each_window_has_its_measured_energy_and_all_estimators(sample: Sample) -> None:
    rows = texts(estimates_table(sample.document))
    assert len(rows) == 2 * (1 + 9)
    assert "0.200 J / output token (gpu, total, counter)" in rows[0][0]
    assert "mean batch 40.0" in rows[0][0]
    tdp = rows[1]
    assert tdp == ["tdp", "0.233", "–", "1.17", "gpu"]
    assert "not given: The load was not steady." in rows[10][0]
    assert rows[11][1].startswith("unavailable: needs the measured throughput")
    flops = rows[13]
    assert (flops[0], flops[3]) == ("flops", "–")


def test_scores_are_over_the_windows_with_a_measured_energy(sample: Sample) -> None:
    rows = {row[0]: row for row in texts(scores_table(sample.document))}
    assert rows["tdp"] == ["tdp", "1", "16.7 %", "1.17", "100 %", "1.17"]
    sample.summary["estimates"] = [estimates({"q04": window(None)})]
    rows = {row[0]: row for row in texts(scores_table(sample.document))}
    assert rows["tdp"][1] == "not scored: The load was not steady."


def test_the_picture_holds_every_method_with_a_ratio(sample: Sample) -> None:
    figure = plot_estimates(sample.document)
    assert figure is not None
    assert len(figure.data) == 9
    (ratio,) = figure.data[0].x
    assert ratio == pytest.approx(700 / 3000 / MEASURED_J)
    sample.summary["estimates"] = [estimates({"q04": window(None)})]
    assert plot_estimates(sample.document) is None


def test_what_is_not_known_is_said(sample: Sample) -> None:
    why = "the server had no GPU that is recorded; the estimators are of GPUs"
    sample.summary["estimates"] = [estimates({}, unknown=[why], model=None, gpu=None)]
    assert estimates_table(sample.document).rows == []
    (text,) = estimate_texts(sample.document)
    assert text.startswith("sweep: no estimates. The server had no GPU")


def test_the_report_has_the_section(sample: Sample) -> None:
    page = sample.folder / "report.html"
    write_report(page, sample.summary_path, [sample.session], [sample.environment])
    text = page.read_text()
    assert '<section id="estimates">' in text
    assert "energy-roofline" in text
    assert "J / output token (modelled)" in text
    assert "Llama-3.1-8B on 1 × H100-SXM; calibration h100-published." in text


def test_a_summary_of_before_says_so(tmp_path: Path) -> None:
    made = make_sample(tmp_path)
    page = made.folder / "report.html"
    write_report(page, made.summary_path, [made.session], [made.environment])
    assert "made by a version without them" in page.read_text()
