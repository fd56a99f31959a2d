"""What the report shows of the metric family, and that it shows no number where there is none."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest

from inference_energy.contracts.documents.document import document_from_dict
from inference_energy.contracts.documents.experiment import SummaryDocument
from inference_energy.contracts.io import read_json, write_json
from inference_energy.present.metrics.section import MetricSection, metric_section
from inference_energy.present.report import write_report
from inference_energy.present.tables import Table


@pytest.fixture
def summary(results: Path) -> dict:
    return copy.deepcopy(read_json(results / "synthetic/summary.json"))


@pytest.fixture
def section(summary: dict) -> MetricSection:
    found = shown(summary)
    assert found is not None
    return found


def shown(summary: dict) -> MetricSection | None:
    return metric_section(document_from_dict(summary, SummaryDocument, "summary.json"))


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in table.rows]


@pytest.mark.slow
def test_power_against_load_has_the_ideal_line(section: MetricSection, summary: dict) -> None:
    measured, ideal = section.plots["metrics-power"].data
    sweep = summary["metrics"]["sweeps"][0]
    assert (measured.x[0], measured.y[0]) == (0.0, sweep["idle_w"])
    assert len(measured.x) == 4
    assert measured.x[-1] == pytest.approx(1.0)
    assert list(ideal.x) == [0.0, 1.0]
    assert list(ideal.y) == [0.0, pytest.approx(measured.y[-1])]


def test_no_energy_per_token_lies_below_the_floor(section: MetricSection, summary: dict) -> None:
    measured, floor = section.plots["metrics-token"].data
    idle_w = summary["metrics"]["sweeps"][0]["idle_w"]
    assert floor.y[0] == pytest.approx(idle_w / floor.x[0])
    assert all(y > idle_w / x for x, y in zip(measured.x, measured.y, strict=True))
    assert measured.error_y.array is not None


def test_fronts_are_drawn_and_named(section: MetricSection) -> None:
    name, title, table = section.fronts[0]
    assert "less is better" in title
    drawn = {line.name: len(line.x) for line in section.plots[name].data}
    assert sum(drawn.values()) == 4
    assert all("front" in each or "dominated" in each for each in drawn)
    assert next(row[-1] for row in texts(table) if len(row) > 1) == "yes"


def test_a_sweep_of_one_level_is_in_the_table_without_numbers(section: MetricSection) -> None:
    rows = {row[0]: row for row in texts(section.sweeps)}
    assert any("not given: 1 usable level" in text for text in rows["quiz · small"])


def test_what_is_missing_is_said_and_not_numbered(summary: dict, tmp_path: Path) -> None:
    for cell in summary["metrics"]["cells"]:
        for name, figure in cell["figures"].items():
            if name.startswith(("efficiency", "sci")):
                figure |= {"value": None, "valid": False, "interval_95": None, "budget": None}
                figure["reasons"] = [{"code": "gap", "detail": "The power log has a hole."}]
    found = shown(summary)
    assert found is not None
    for row in texts(found.efficiency):
        if len(row) > 1:
            # Two figures that fail for one reason share a cell that says it.
            assert row[3:] == ["not given: The power log has a hole."]


def test_the_report_has_the_section(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_report(page, results / "synthetic/summary.json", [])
    html = page.read_text()
    assert html.count('id="metrics"') == 1
    body = html.partition('<section id="metrics">')[2].partition("</section>")[0]
    for heading in ("Work for energy", "Load proportionality", "Quality", "Pareto fronts"):
        assert f"<h3>{heading}</h3>" in body
    assert "for comparison only: ESS" in body
    assert not re.search(r">\s*(nan|None|inf)\s*<", body)
    assert 'id="figure-metrics-power"' in html


def test_an_older_summary_says_that_it_has_none(summary: dict, tmp_path: Path) -> None:
    del summary["metrics"]
    write_json(tmp_path / "summary.json", summary)
    write_report(tmp_path / "report.html", tmp_path / "summary.json", [])
    assert "The summary holds no metrics of steady load." in (tmp_path / "report.html").read_text()
