from pathlib import Path

import pytest
from report_sample import invalidate, make_sample

from inference_energy.contracts.figure import Reason
from inference_energy.present.summary_line import five_lines

REPORT = Path("results/llama-sweep/report.html")


@pytest.fixture
def summary(tmp_path):
    return make_sample(tmp_path).summary


def test_five_lines_with_load_basis_boundary_and_grade(summary):
    lines = five_lines(summary, REPORT).split("\n")
    assert len(lines) == 5
    assert "Llama-3.1-8B-Instruct on h100-box" in lines[0]
    assert "mJ / output token at Poisson 4 req/s, chat" in lines[1]
    assert "(active, gpu, counter)" in lines[1]
    assert "CO₂e / 1k output tokens" in lines[2]
    assert "3 of 3" in lines[3]
    assert lines[4].endswith("results/llama-sweep/report.html")


def test_prefill_and_decode_are_no_headlines(summary):
    assert "Poisson 8 req/s" not in five_lines(summary, REPORT)


def test_modelled_is_said_on_every_line_with_a_figure(tmp_path):
    lines = five_lines(make_sample(tmp_path, grade="modelled", boundary="cpu").summary, REPORT).split("\n")
    assert all("modelled" in line for line in lines[1:4])


def test_a_missing_figure_gives_its_reason_and_no_number(summary):
    for cell in range(3):
        invalidate(summary, cell, "energy_", Reason("gap", "The power log has a hole."))
    lines = five_lines(summary, REPORT).split("\n")
    assert lines[1] == "energy   not given: The power log has a hole."
    assert "0 of 3" in lines[3]


def test_many_cells_become_a_range(summary):
    summary["cells"] = [{**summary["cells"][i % 3], "cell": f"sweep.c{i}"} for i in range(6)]
    line = five_lines(summary, REPORT).split("\n")[1]
    assert line.count("mJ / output token") == 2
    assert " to " in line


def test_no_cells(summary):
    summary["cells"] = []
    lines = five_lines(summary, REPORT).split("\n")
    assert len(lines) == 5
    assert "no steady cell" in lines[1]
