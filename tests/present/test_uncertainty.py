"""Intervals wherever a figure is shown, reasons where there are none, and the budgets behind them."""

import json
import re

import pytest
from report_sample import invalidate, make_sample, windows_of
from test_report import parse, report

from inference_energy.analysis.figures import figure_from_dict
from inference_energy.analysis.footprint import water_figures
from inference_energy.config.analysis import WaterConfig
from inference_energy.contracts.figure import Reason
from inference_energy.present import plots
from inference_energy.present.tables import TableCell
from inference_energy.present.uncertainty import budget_table, freedom, plot_budgets
from inference_energy.present.window_tables import checks_table, devices_table, idle_rows, work_table

pytestmark = pytest.mark.slow

HOLE = Reason("gap", "The power log has a hole of 40 s.")
MODEL = "No interval: the error of a model is not known."
EXACT = "No interval: counts and times are exact, and are those of this window alone."


@pytest.fixture
def sample(tmp_path):
    return make_sample(tmp_path)


@pytest.fixture
def cells(sample):
    return sample.summary["cells"]


def section(path, name):
    (found,) = re.findall(rf'<section id="{name}">(.*?)</section>', path.read_text(), re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found))


def budget_of(cells, cell=None):
    """The budgets of one cell, by default the first."""
    return budget_table(windows_of([cell or cells[0]])[0], windows_of(cells))


def texts(row):
    return [cell.text.replace("\u00a0", " ") for cell in row.cells]


def groups(table):
    """The rows below each heading of a table."""
    found = {}
    for row in table.rows:
        if row.group:
            found[row.cells[0].text] = own = []
        else:
            own.append(texts(row))
    return found


def test_tiles_and_tables_show_the_interval_of_every_figure_that_has_one(sample):
    path = report(sample)
    cards = section(path, "headlines")
    assert cards.count(" ± ") == 15 + 1
    assert "375 ± 23 mJ / output token" in cards
    assert 'title="95\u00a0% interval: 352 to 398 mJ / output token"' in path.read_text()
    tables = section(path, "windows")
    assert "25.0\u00a0±\u00a01.5" in path.read_text()
    (work,) = re.findall(r"Work done in the window.*?Checks", tables)
    assert work.count("±") == 5


def test_a_figure_that_lost_its_value_shows_no_interval_though_one_was_recorded(sample):
    for cell in sample.summary["cells"]:
        for name, figure in cell["figures"].items():
            if figure["interval_95"]:
                cell["figures"][name] = figure | {
                    "value": None,
                    "valid": False,
                    "reasons": [{"code": "gap", "detail": HOLE.detail}],
                }
    sample.summary["fits"] = []
    path = report(sample)
    for name in ("headlines", "windows", "uncertainty"):
        assert not re.search(r"± \d", section(path, name)), name
    assert not re.search(r"±(?: |\u00a0)\d", section(path, "receipts"))


def test_a_modelled_figure_says_that_its_error_is_not_known(tmp_path):
    path = report(make_sample(tmp_path, grade="modelled", boundary="cpu (modelled)"))
    cards = section(path, "headlines")
    assert not re.search(r"± \d", cards)
    assert cards.count(MODEL) == 1
    assert cards.count(EXACT) == 1
    for name in ("windows", "uncertainty", "fit", "idle"):
        assert MODEL.removeprefix("No interval: ") in section(path, name), name


def test_a_reason_for_a_whole_column_stands_once_in_its_heading(cells):
    table = work_table(windows_of(cells))
    assert table.reasons == [EXACT]
    assert [table.heading_notes(index) for index in range(3)] == [(), (1,), ()]
    assert table.label(1) == "duration (s) ¹"
    power = [row.cells[2] for row in table.rows]
    assert all("±" in cell.text and not table.cell_notes(cell, 2) for cell in power)
    assert all(not table.cell_notes(row.cells[1], 1) for row in table.rows)


def test_a_single_figure_without_an_interval_points_to_its_own_reason(cells):
    cells[0]["figures"]["power_mean_w"] |= {"interval_95": None, "budget": None}
    table = work_table(windows_of(cells))
    column = [row.cells[2] for row in table.rows]
    assert table.reasons[table.cell_notes(column[0], 2)[0] - 1] == "No interval: its uncertainty was not computed."
    assert [table.cell_notes(cell, 2) for cell in column[1:]] == [()] * 4


def test_the_rows_of_a_budget_are_those_of_the_figure(cells):
    found = groups(budget_of(cells))
    assert list(found) == [
        "energy per output token, active: 375 ± 23 mJ / output token",
        "mean power: 455 ± 27 W",
        "energy, total: 25.0 ± 1.5 kJ",
        "carbon, total: 2.65 ± 0.16 g CO₂e",
    ]
    names = ("energy_active_per_output_token_j", "power_mean_w", "energy_total_j", "carbon_total_g")
    for name, rows in zip(names, found.values(), strict=True):
        budget = cells[0]["figures"][name]["budget"]
        assert [row[:2] for row in rows[:-2]] == [[term["name"], term["kind"]] for term in budget["terms"]]
        assert [row[-1] for row in rows[:-2]] == [term["basis"] for term in budget["terms"]]
        assert [row[3] for row in rows] == ["2.9 %", "1.0 %", "3.1 %", "6.0 %"]
        assert [row[4] for row in rows] == ["89.4 %", "10.6 %", "100 %", "–"]
        assert [row[5] for row in rows] == ["∞", "17.2", "> 1,000", "–"]
        assert f"k = {budget['factor']:.2f}" in rows[-1][-1]
    assert [row[2] for row in found["mean power: 455 ± 27 W"]] == ["13 W", "4.5 W", "14 W", "27 W"]


def test_the_expanded_uncertainty_of_a_budget_is_what_stands_beside_the_value(cells):
    for cell in cells:
        for heading, rows in groups(budget_of(cells, cell)).items():
            number, unit = re.search(r"± (\S+) (.*)$", heading).groups()
            assert rows[-1][2] == f"{number} {unit}"


def test_a_figure_without_a_budget_says_why_in_its_place(cells):
    invalidate({"cells": cells}, 0, "energy_", HOLE)
    cells[0]["figures"]["power_mean_w"] |= {"interval_95": None, "budget": None}
    rows = [row for own in groups(budget_of(cells)).values() for row in own]
    assert rows[0] == ["budget", f"not given: {HOLE.detail}"]
    assert rows[1] == ["budget", "not given: No interval: its uncertainty was not computed."]
    assert rows[2] == ["budget", f"not given: {HOLE.detail}"]


def watered(cells):
    """The cells with water, on site a third of what it is at the source."""
    for cell in cells:
        energy_kwh = figure_from_dict(cell["figures"]["energy_total_kwh"])
        factors = WaterConfig(wue_site_l_per_kwh=0.5, ewif_grid_l_per_kwh=1.5, source="invented")
        cell["figures"] |= {name: f.as_dict() for name, f in water_figures(energy_kwh, factors, 1.0).items()}


def test_water_is_shown_with_its_interval_and_its_budget(sample, cells):
    watered(cells)
    rows = groups(budget_of(cells))
    shown = [heading for heading in rows if heading.startswith("water")]
    assert [heading.split(":")[0] for heading in shown] == [
        "water, site, total",
        "water, source, total",
        "water, both, total",
    ]
    for heading in shown:
        assert [row[3] for row in rows[heading]] == ["2.9 %", "1.0 %", "3.1 %", "6.0 %"]
    (impact,) = re.findall(r"Carbon and water of each window.*", section(report(sample), "impact"))
    # Three of carbon, three of water, in each of five cells.
    assert len(re.findall(r"±(?: |\u00a0|&nbsp;)[\d.]+", impact)) == 6 * 5
    assert "how far the factors themselves may be off is not in them" in section(report(sample), "impact")


def test_water_without_a_factor_has_no_budget_and_one_of_an_invalid_energy_says_why(cells):
    assert not any(heading.startswith("water") for heading in groups(budget_of(cells)))
    invalidate({"cells": cells}, 0, "energy_total_kwh", HOLE)
    watered(cells)
    found = groups(budget_of(cells))
    assert found["water, both, total: not given"] == [["budget", f"not given: {HOLE.detail}"]]


def test_the_bars_of_a_cell_are_its_shares_and_sum_to_one(cells):
    figure = plot_budgets(windows_of(cells))
    shown = [bar for bar in figure.data if bar.visible]
    assert [bar.name for bar in shown] == ["sensor gain", "fluctuation of the load"]
    assert sum(bar.x[0] for bar in shown) == pytest.approx(1)
    assert shown[0].x[0] == pytest.approx(0.029**2 / (0.029**2 + 0.01**2))
    assert len(figure.layout.updatemenus[0].buttons) == 3
    assert len(set(shown[0].y)) == len(cells)


def test_without_any_budget_there_is_no_chart_of_them(tmp_path):
    sample = make_sample(tmp_path, grade="modelled", boundary="cpu (modelled)")
    assert plot_budgets(windows_of(sample.summary["cells"])) is None
    assert '<div class="figure" data-figure="budgets"' not in report(sample).read_text()


@pytest.mark.parametrize(
    ("dof", "shown"), [(None, "∞"), (5.25, "5.25"), (999.0, "999"), (641345339.4, "> 1,000")], ids=str
)
def test_degrees_of_freedom(dof, shown):
    assert freedom(dof) == shown


def test_points_of_the_load_chart_have_bars_and_say_95_percent(cells):
    figure = plots.plot_energy_vs_load(windows_of(cells[:3]))
    active = next(line for line in figure.data if line.name == "active")
    low, high = cells[0]["figures"]["energy_active_per_output_token_j"]["interval_95"]
    assert active.y[0] - active.error_y.arrayminus[0] == pytest.approx(low)
    assert active.y[0] + active.error_y.array[0] == pytest.approx(high)
    assert "0.375 ± 0.023 J / output token (95 %)" in active.text[0]


def test_points_without_an_interval_have_no_bars(tmp_path):
    figure = plots.plot_energy_vs_load(windows_of(make_sample(tmp_path, grade="modelled").summary["cells"][:3]))
    assert all(line.error_y.array is None for line in figure.data)
    assert all("95 %" not in text for line in figure.data for text in line.text)


def test_idle_powers_have_intervals_and_their_bars_end_inside_the_frame(sample):
    (row,) = idle_rows(sample.document.idle)
    assert [bar.figure.text for bar in row.bars] == ["71.0 ± 4.3 W", "124.0 ± 7.5 W", "83.2 ± 5.0 W"]
    assert all(0 < bar.low < bar.share < bar.high <= 1 for bar in row.bars)
    assert max(bar.high for bar in row.bars) == 1


def test_what_was_odd_about_an_idle_phase_stands_beside_it(sample):
    notes = ["The cold idle has a median of 71 W, but at 3 s (90 W) not.", "Idle power rose by 7 % over the phase."]
    sample.summary["idle"][0]["cold_power_w"]["reasons"] = [
        {"code": "idle_outliers", "detail": notes[0]},
        {"code": "idle_trend", "detail": notes[1]},
    ]
    assert " ".join(notes) in section(report(sample), "idle")


def test_an_invalid_idle_power_sets_no_scale(sample):
    sample.summary["idle"][0]["post_power_w"] |= {
        "value": None,
        "interval_95": (9e5, 9e5),
        "valid": False,
        "reasons": [{"code": "gap", "detail": HOLE.detail}],
    }
    (row,) = idle_rows(sample.document.idle)
    assert [bar.figure.text for bar in row.bars][1:] == ["124.0 ± 7.5 W", "not given"]
    assert row.bars[2].share == 0


def test_checks_hold_both_tests_and_the_ratios_of_each_device(cells):
    row = texts(checks_table(windows_of(cells)).rows[0])
    assert row[1].startswith("yes: power +1.2 % (p 0.4), tokens/s +1.2 %")
    assert row[2].startswith("yes: power -0.4 % (p 0.7), tokens/s -0.4 %")
    assert row[3] == "gpu GPU-4f1c9a02: average 0.9996, instant 1.0028"


def test_a_level_that_changed_is_bad_though_there_was_no_trend(cells):
    cells[0]["checks"]["steadiness"]["stationarity"]["power_w"] |= {"exceeded": True, "difference_share": 0.3}
    row = checks_table(windows_of(cells)).rows[0].cells
    assert [cell.kind for cell in row[1:3]] == ["good", "bad"]
    assert row[2].text.startswith("no: power +30.0")


def test_a_window_too_short_to_judge_says_so_once(cells):
    cells[0]["checks"]["steadiness"] = {
        "judged": False,
        "steady": None,
        "blocks": 3,
        "why_not_judged": "3 blocks fit",
        "trends": {},
        "stationarity": {},
        "required": True,
    }
    assert texts(checks_table(windows_of(cells)).rows[0])[1:3] == [
        "not judged: 3 blocks fit",
        "gpu GPU-4f1c9a02: average 0.9996, instant 1.0028",
    ]


@pytest.mark.parametrize(
    ("verdicts", "kind", "words"),
    [
        ((True, True), "good", "agree: "),
        ((True, None), None, "not resolved, the server's counters are read too seldom for this window: "),
        ((None, False), "bad", "disagree: "),
    ],
)
def test_token_counts_that_could_not_be_told_apart_are_not_said_to_agree(cells, verdicts, kind, words):
    reconciliation = cells[0]["checks"]["reconciliation"]
    plain = TableCell("").kind
    for name, verdict in zip(("generated", "prompt"), verdicts, strict=True):
        reconciliation[name] = {**reconciliation[name], "agrees": verdict, "share": -0.1}
    cell = checks_table(windows_of(cells)).rows[0].cells[4]
    assert (cell.kind, cell.text) == (kind or plain, f"{words}generated -10.00\u00a0%, prompt -10.00\u00a0%")


def test_devices_show_what_they_were_read_from_and_both_ratios(cells):
    cells[0]["devices"].append({**cells[0]["devices"][0], "reading": "average", "counter_energy_j": None, "ratios": {}})
    rows = [texts(row) for row in devices_table(windows_of(cells[:1])).rows[1:]]
    assert rows[0][2:6] == ["counter", "25,020", "0.9996", "1.0028"]
    assert rows[1][2:6] == ["average", "–", "–", "–"]


def test_devices_of_a_window_without_energy_show_no_energy_but_why(cells):
    name, detail = "energy_total_j", "The power of gpu did not change for 9.0 s."
    cells[0]["figures"][name] |= {"value": None, "valid": False, "interval_95": None, "budget": None}
    cells[0]["figures"][name]["reasons"] = [{"code": "stuck_sensor", "detail": detail}]
    table = devices_table(windows_of(cells[:1]))
    for row in table.rows[1:]:
        assert [row.cells[place].text for place in (1, 3)] == ["not given", "not given"]
    assert table.reasons == [detail]
    assert texts(table.rows[1])[4:6] == ["0.9996", "1.0028"]


def test_what_an_interval_of_a_coefficient_holds_is_said_only_where_there_is_one(sample):
    within = "The 95 % intervals hold what measuring leaves open"
    assert section(report(sample), "fit").count(within) == 1
    for figure in sample.summary["fits"][0]["models"]["power_term"]["coefficients"].values():
        figure |= {"interval_95": None, "budget": None}
    text = section(report(sample), "fit")
    assert within not in text
    assert "its uncertainty was not computed" in text


def test_receipts_carry_the_relative_uncertainty_of_their_window(sample):
    assert section(report(sample), "receipts").count("6.0 %") == 5


def test_names_in_a_budget_cannot_break_out(sample):
    evil = '</script><img src=x onerror="alert(1)">'
    for cell in sample.summary["cells"]:
        for figure in cell["figures"].values():
            for term in (figure["budget"] or {"terms": []})["terms"]:
                term |= {"name": evil, "basis": evil}
    path = report(sample)
    page = parse(path)
    assert evil in page.text
    assert "img" not in page.tags
    (content,) = re.findall(r'id="figure-budgets">(.*?)</script>', path.read_text(), re.DOTALL)
    for bar in json.loads(content)["data"]:
        assert "<img" not in bar["name"] + "".join(bar["text"])
