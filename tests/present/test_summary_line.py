import json
from pathlib import Path

import pytest
from report_sample import document_of, invalidate, make_sample

from inference_energy.contracts.figure import Reason
from inference_energy.present.summary_line import WIDTH, five_lines

REPORT = Path("results/llama-sweep/report.html")
NO_COLD_IDLE = Reason("cold_idle_missing", "No cold idle power: the server was already running.")


@pytest.fixture
def summary(tmp_path):
    return make_sample(tmp_path).summary


def lines_of(summary):
    lines = five_lines(document_of(summary), REPORT).split("\n")
    assert [line[:9] for line in lines] == ["served   ", "energy   ", "carbon   ", "trust    ", "report   "]
    return lines


def attach(summary, cells=range(5)):
    """Make cells those of an attached server: without a cold idle there is no active figure."""
    for cell in cells:
        for names in ("energy_active", "carbon_active"):
            invalidate(summary, cell, names, NO_COLD_IDLE)


def test_five_lines_with_load_basis_boundary_and_grade(summary):
    lines = lines_of(summary)
    assert "Llama-3.1-8B-Instruct on h100-box: 5 windows" in lines[0]
    assert lines[1].startswith("energy   mJ / output token: 375 ± 23 at Poisson 4 req/s, chat; ")
    assert lines[1].endswith("(active, gpu, counter)")
    assert "CO₂e / 1k output tokens: " in lines[2]
    assert lines[3] == "trust    3 of 3 loads have an energy per output token (active)"
    assert lines[4].endswith("results/llama-sweep/report.html")
    assert all(len(line) <= WIDTH + 9 for line in lines)


def test_carbon_is_on_the_basis_of_the_energy(summary):
    carbon = summary["cells"][0]["figures"]["carbon_active_per_1k_output_tokens_g"]
    value_mg = carbon["value"] * 1000
    shown = f"{value_mg:.1f} ± {carbon['interval_95'][1] * 1000 - value_mg:.1f}"
    lines = lines_of(summary)
    assert lines[2].endswith("(active, gpu, counter)")
    assert f"{shown} at Poisson 4 req/s" in lines[2]


def test_an_attached_server_gives_its_total_energy_and_says_so(summary):
    attach(summary)
    lines = lines_of(summary)
    energy = summary["cells"][0]["figures"]["energy_total_per_output_token_j"]["value"]
    assert lines[1].startswith(f"energy   mJ / output token: {energy * 1000:.3g} ± 27 at Poisson 4 req/s, chat; ")
    assert lines[1].endswith("(total, gpu, counter)")
    assert lines[2].endswith("(total, gpu, counter)")
    assert lines[3].startswith("trust    3 of 3 loads have an energy per output token (total); sweep.q04 has no active")
    assert "already running" in lines[3]
    assert all(len(line) <= WIDTH + 9 for line in lines)


def test_cells_on_different_bases_are_counted_apart(summary):
    attach(summary, [1])
    lines = lines_of(summary)
    assert "at Poisson 16 req/s" not in lines[1]
    assert "3 of 3 loads have an energy per output token (2 active, 1 total)" in lines[3]
    assert "sweep.q16 has no active energy" in lines[3]


def test_windows_are_counted_by_what_the_test_of_steadiness_said(summary):
    checks = [cell["checks"]["steadiness"] for cell in summary["cells"]]
    assert lines_of(summary)[0].endswith("test of steadiness: 3 passed, 0 not judged, 0 failed")
    checks[0] |= {"judged": False, "trends": {}}
    checks[1]["trends"]["power_w"] |= {"exceeded": True}
    assert lines_of(summary)[0].endswith("test of steadiness: 1 passed, 1 not judged, 1 failed")


def test_a_window_that_only_the_test_of_its_level_failed_counts_as_failed(summary):
    summary["cells"][0]["checks"]["steadiness"]["stationarity"]["power_w"] |= {"exceeded": True}
    assert lines_of(summary)[0].endswith("test of steadiness: 2 passed, 0 not judged, 1 failed")


def test_prefill_and_decode_are_no_headlines(summary):
    assert "Poisson 8 req/s" not in five_lines(document_of(summary), REPORT)


def test_modelled_is_said_on_every_line_with_a_figure(tmp_path):
    lines = lines_of(make_sample(tmp_path, grade="modelled", boundary="cpu (modelled)").summary)
    assert all("modelled" in line for line in lines[1:4])
    assert lines[1].endswith("(active, cpu (modelled))")
    assert "±" not in "".join(lines)
    assert lines[3].endswith("power is modelled, not measured: its error is not known")


def test_a_missing_figure_gives_its_reason_and_no_number(summary):
    for cell in range(3):
        invalidate(summary, cell, "energy_", Reason("gap", "The power log has a hole."))
    lines = lines_of(summary)
    assert lines[1] == "energy   not given: The power log has a hole."
    assert "0 of 3" in lines[3]


def test_a_long_reason_is_cut_and_a_warning_is_not(tmp_path):
    summary = make_sample(tmp_path, grade="modelled", boundary="cpu (modelled)").summary
    for cell in range(3):
        invalidate(summary, cell, "energy_", Reason("gap", "The power log has a hole, " + "a very long one, " * 20))
    lines = lines_of(summary)
    assert "power is modelled, not measured" in lines[3]
    assert lines[3].endswith("…")
    assert all(len(line) <= WIDTH + 9 for line in lines)


def test_many_cells_become_a_range(summary):
    summary["cells"] = [{**summary["cells"][i % 3], "cell": f"sweep.c{i}"} for i in range(6)]
    line = lines_of(summary)[1]
    assert line.count(" at Poisson") == 2
    assert " to 375 ± 23 at Poisson 4 req/s" in line


def test_three_long_loads_become_a_range(summary):
    summary = json.loads(json.dumps(summary))
    for cell in summary["cells"]:
        cell["load"]["text"] += " with a longer name"
    line = lines_of(summary)[1]
    assert line.count(" at Poisson") == 2
    assert len(line) <= WIDTH + 9


def test_no_cells(summary):
    summary["cells"] = []
    lines = lines_of(summary)
    assert "no window of steady load" in lines[1]
