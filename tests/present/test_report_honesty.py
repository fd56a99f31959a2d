"""What the report must not suggest: points joined to no series, fits that do not predict, schedules that are not."""

import json
import re

import pandas as pd
import pytest
from report_sample import invalidate, make_sample
from test_report import parse, report

from inference_energy.contracts.figure import Reason, missing_figure
from inference_energy.present import latency

pytestmark = pytest.mark.slow


@pytest.fixture
def sample(tmp_path):
    return make_sample(tmp_path)


def drawn(path, name):
    (content,) = re.findall(
        rf'<script type="application/json" id="figure-{name}">(.*?)</script>', path.read_text(), re.DOTALL
    )
    return json.loads(content)["data"]


def test_loads_of_one_process_and_workload_are_joined(sample):
    assert {line["mode"] for line in drawn(report(sample), "load")} == {"lines+markers"}


@pytest.mark.parametrize(
    "change", [{"arrival": {"process": "closed", "concurrency": 8}}, {"workload": "summaries"}], ids=["process", "work"]
)
def test_loads_that_differ_in_more_than_size_are_points(sample, change):
    sample.summary["cells"][1]["load"] |= change
    lines = drawn(report(sample), "load")
    assert [len(line["x"]) for line in lines] == [3, 3, 3]
    assert {line["mode"] for line in lines} == {"markers"}


def test_a_closed_loop_has_no_curve_from_a_schedule(sample):
    requests = pd.read_parquet(sample.session.requests)
    assert "ttft_from_schedule" in latency.latencies(requests)
    assert "ttft_from_schedule" not in latency.latencies(requests, scheduled=False)
    for cell in sample.summary["cells"]:
        cell["load"]["arrival"] = {"process": "closed", "concurrency": 2}
    page = report(sample)
    buttons = page.read_text().count('"label": "TTFT from schedule"')
    assert (buttons, page.read_text().count('"label": "TTFT from send"')) == (0, 1)


def test_a_number_and_its_unit_stand_on_one_line(sample):
    html = report(sample).read_text()
    assert ".number { white-space: nowrap; }" in html
    pairs = re.findall(
        r'<span class="number"[^>]*><span class="value">[^<]+</span>(?:<span class="spread">[^<]+</span>)?'
        r'<span class="unit">[^<]*</span>(?:<sup>\d+</sup>)?</span>',
        html,
    )
    assert len(pairs) == html.count('<span class="value">')


def test_held_out_errors_come_before_how_well_a_fit_fits_itself(sample):
    (section,) = re.findall(r'<section id="fit">(.*?)</section>', report(sample).read_text(), re.DOTALL)
    terms = re.findall(r"<dt>(.*?)</dt>", section)
    assert (
        terms.index("mean error, window held out")
        < terms.index("R², own cells")
        < terms.index("a, per uncached prompt token", 4)
    )


def test_a_refused_fit_shows_its_errors_and_neither_coefficients_nor_r2(sample):
    model = sample.summary["fits"][0]["models"]["power_term"]
    reason = Reason("poor_generalisation", "A fit to the other windows misses the one left out by 57 % on average.")
    model["leave_one_out"] |= {"mean_abs_relative_error": 0.57, "worst_abs_relative_error": 2.27}
    model["refused"] = [{"code": reason.code, "detail": reason.detail}]
    model["coefficients"] = {
        term: missing_figure(f["unit"], "total", "gpu", "counter", reason).as_dict()
        for term, f in model["coefficients"].items()
    }
    (section,) = re.findall(r'<section id="fit">(.*?)</section>', report(sample).read_text(), re.DOTALL)
    assert "R²" not in section
    assert "449 W" not in section
    assert "<dt>mean error, window held out</dt><dd>57 %</dd>" in section
    assert "<dt>worst error, window held out</dt><dd>230 %</dd>" in section
    assert section.count(reason.detail) == 1


def test_an_attached_server_is_shown_by_its_total_energy(sample):
    for cell in range(5):
        for names in ("energy_active", "carbon_active"):
            invalidate(sample.summary, cell, names, Reason("cold_idle_missing", "No cold idle power."))
    page = parse(report(sample))
    assert "3 windows of realistic load, of which 3 with an energy per token" in page.text
    assert re.search(r"energy, total \d+ ± \d+ mJ / output token", page.text)
    cards, _ = page.text.split("Power trace Power from")
    assert len(re.findall(r"± [\d.]+ mg CO₂e total · gpu · counter", cards)) == 3


def test_what_the_power_leaves_out_is_said_once(sample):
    note = "Figures contain gpu; outside are the host CPU and more."
    sample.summary["notes"] = [note]
    assert parse(report(sample)).text.count(note) == 1
