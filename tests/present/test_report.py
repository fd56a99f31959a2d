import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from msgspec import structs
from report_sample import SERVER, invalidate, make_sample, page_text

from inference_energy.contracts.documents.document import write_document
from inference_energy.contracts.figure import Reason
from inference_energy.errors import InputError
from inference_energy.present.report import write_report
from inference_energy.present.report_inputs import SessionFiles

VOID = {"meta", "br", "hr", "img", "input", "link", "col"}
HOLE = Reason("gap", "The power log has a hole of 40 s.")


class Page(HTMLParser):
    """Checks that elements nest, and gathers attributes that load something, ids, links and text."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.loads, self.ids, self.links, self.words, self.tags = [], [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "srcset", "href", "action", "data", "poster"):
                (self.links if tag == "a" else self.loads).append(value)
            if name == "id":
                self.ids.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def parse(path):
    page = Page()
    page.feed(path.read_text())
    page.close()
    assert not page.open
    return page


def report(sample, **changes):
    path = sample.folder / "report.html"
    files = changes.pop("sessions", [sample.session])
    write_report(path, sample.summary_path, files, changes.pop("environments", [sample.environment]), **changes)
    return path


@pytest.fixture
def sample(tmp_path):
    return make_sample(tmp_path)


def test_one_well_formed_file_that_loads_nothing(sample):
    path = report(sample)
    page = parse(path)
    assert page.loads == []
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"@import|url\(", page_text(path))
    assert not re.search(r"https?://", page_text(path))
    assert path.read_text().count("plotly.js v") == 1
    assert "default-src 'none'" in path.read_text()


def test_everything_asked_for_is_there(sample):
    text = parse(report(sample)).text
    for wanted in (
        "Llama-3.1-8B-Instruct",
        "vLLM 0.25.1",
        "NVIDIA H100 80GB HBM3",
        "Intel Xeon Platinum 8480C",
        "21 June 2026",
        "375 ± 23 mJ / output token",
        "active · gpu · counter",
        "server up, no request; subtracted by marginal figures",
        "381 g CO₂e / kWh, lifecycle, zone DEU",
        "No water factor is configured.",
        "no interface here tells it",
        "this vLLM build does not state its commit",
        "What these figures do not mean",
        "0e9e39f249a16976918f6564b8830bc894c89659",
        "vllm serve --model",
        "P0, whatever the load 449 ± 27 W",
        "2 usable windows for 2 coefficients.",
    ):
        assert wanted in text, wanted
    assert "modelled, not measured" not in text


def test_every_figure_drawn_has_a_place_and_data(sample):
    html = report(sample).read_text()
    places = set(re.findall(r'data-figure="([^"]+)"', html))
    found = re.findall(r'<script type="application/json" id="figure-([^"]+)">(.*?)</script>', html, re.DOTALL)
    drawn = {"load", "latency", "receipts", "fit", "budgets", "trace-0", "course-0"}
    assert places == {name for name, _ in found} == drawn
    for _, content in found:
        figure = json.loads(content)
        assert figure["data"]


def test_an_invalid_figure_shows_its_reason_and_no_number(sample):
    energy = sample.summary["cells"][0]["figures"]["energy_active_per_output_token_j"]["value"]
    shown = f"{energy * 1000:.3g}"
    assert shown in parse(report(sample)).text
    for cell in range(5):
        invalidate(sample.summary, cell, "energy_", HOLE)
    sample.summary["fits"] = []
    page = parse(report(sample))
    cards, tables = page.text.split("Power trace Power from")
    assert cards.count(HOLE.detail) == 9
    assert shown not in cards
    assert " J / output token" not in cards
    assert tables.count(f"not given: {HOLE.detail}") >= 15


def test_a_single_missing_figure_points_to_its_reason(sample):
    invalidate(sample.summary, 0, "ttft_p99", Reason("no_requests", "No request ended in the window."))
    html = report(sample).read_text()
    (table,) = re.findall(r"<caption>Percentiles.*?</ol>", html, re.DOTALL)
    (note,) = re.findall(r"not given<sup>(\d)</sup>", table)
    assert re.findall("<li>(.*?)</li>", table)[int(note) - 1] == "No request ended in the window."


def test_notes_on_a_valid_figure_are_shown(sample):
    figure = sample.summary["cells"][0]["figures"]["energy_active_per_output_token_j"]
    figure["reasons"] = [{"code": "power_cap", "detail": "The GPU ran at its power limit."}]
    html = report(sample).read_text()
    assert '<p class="notes">The GPU ran at its power limit.</p>' in html


@pytest.mark.parametrize("grade", ["modelled", "simulated"])
def test_a_modelled_figure_says_so_wherever_it_stands(tmp_path, grade):
    path = report(make_sample(tmp_path, grade=grade, boundary="cpu"))
    assert f"Power is {grade}, not measured" in parse(path).text
    html = path.read_text()
    values = re.findall(r'<span class="value">.*?(?=<span class="value">|</article>)', html, re.DOTALL)
    power = [value for value in values if "counted" not in value]
    assert len(power) == 15
    assert all(f'<span class="tag">{grade}</span>' in value for value in power)
    rows = re.findall(r"<tr>\s*<th scope=\"row\">(?:active|total|marginal)</th>.*?</tr>", html, re.DOTALL)
    assert len(rows) == 15
    assert all(grade in row for row in rows)
    coefficient = "449 W" if grade == "modelled" else "449 ± 27 W"
    assert html.count(f'{coefficient}</strong> <span class="tag">{grade}</span>') == 1


def test_measured_parts_are_named_beside_modelled_ones(sample):
    for cell in sample.summary["cells"]:
        cell["devices"].append({**cell["devices"][0], "domain": "cpu", "grade": "modelled"})
    text = parse(report(sample)).text
    assert "Power is modelled, not measured: cpu." in text
    assert "Measured: gpu." in text


def test_dummy_weights_are_stated(sample):
    model = json.loads(sample.session.model.read_text())
    sample.session.model.write_text(json.dumps({**model, "weights": "dummy"}))
    assert "Dummy weights." in parse(report(sample)).text


def test_one_session_on_two_machines_is_told_apart(sample):
    cells = sample.summary["cells"]
    sample.summary["cells"] = cells + [{**cell, "machine": "other-box"} for cell in cells]
    text = parse(report(sample)).text
    assert "Poisson 4 req/s, chat · sweep.q04 · other-box" in text
    assert "Poisson 4 req/s, chat · sweep.q04 · h100-box" in text


def test_sessions_that_saw_the_same_machine_share_one_description(sample):
    paths = []
    for session in ("base", "extra"):
        path = sample.folder / "raw" / "h100-box" / "sessions" / session / "environment.json"
        path.parent.mkdir(parents=True)
        path.write_text(sample.environment.read_text())
        paths.append(path)
    text = parse(report(sample, environments=paths)).text
    assert "Machine h100-box, session base; h100-box, session extra" in text
    assert text.count("no interface here tells it") == 1


def test_hostile_names_stay_text(sample):
    evil = "<script>alert(1)</script>"
    for cell in sample.summary["cells"]:
        cell["model"], cell["load"]["text"] = evil, f"{evil} 4 req/s"
    sample.summary["experiment"] = evil
    sample.summary["notes"] = [evil]
    model = json.loads(sample.session.model.read_text())
    sample.session.model.write_text(json.dumps({**model, "name": evil, "license": '"><img src=x onerror=alert(1)>'}))
    path = report(sample)
    page = parse(path)
    assert evil in page.text
    assert "img" not in page.tags
    assert "alert(1)</script>" not in path.read_text()


def test_no_valid_cell_at_all(sample):
    for cell in range(5):
        invalidate(sample.summary, cell, "", HOLE)
    sample.summary["fits"] = []
    page = parse(report(sample, sessions=[]))
    assert "No power log was given" in page.text
    assert "No fit was made" in page.text
    assert "of which 0 with an energy" in page.text


def test_no_cell_at_all(sample):
    sample.summary["cells"], sample.summary["fits"], sample.summary["idle"] = [], [], []
    page = parse(report(sample, sessions=[], environments=[]))
    assert "no steady window" in page.text
    assert "No idle power was recorded." in page.text


def test_attach_mode_without_cold_idle(sample):
    absent = Reason("cold_idle_missing", "No cold idle power: the server was already running.")
    for cell in range(5):
        invalidate(sample.summary, cell, "energy_active", absent)
    row = sample.summary["idle"][0]
    row["cold_power_w"] = sample.summary["cells"][0]["figures"]["energy_active_j"] | {"unit": "W", "basis": "none"}
    unseen = {"vllm_version": None, "packages": None, "missing": {"vllm_version": "not seen"}}
    write_document(sample.session.server_environment, structs.replace(SERVER, kind="attach", **unseen))
    session = replace(sample.session, model=None, receipts=None, idle=None)
    page = parse(report(sample, sessions=[session]))
    assert page.text.count(absent.detail) >= 4
    assert "before the server starts; subtracted by active figures. " + absent.detail in page.text
    assert "mJ / output token" in page.text
    assert "There is no receipt with an amount" in page.text


def test_an_unsteady_cell_says_what_moved(sample):
    trends = sample.summary["cells"][1]["checks"]["steadiness"]["trends"]
    trends["power_w"] |= {"exceeded": True, "change_share": 0.23}
    html = report(sample).read_text()
    assert re.search(r'<td class="bad"[^>]*><span>no: power \+23\.0\u00a0%', html)


def test_receipts_are_compared_with_the_energy_of_the_window(sample):
    text = parse(report(sample)).text
    assert "sum / window energy" in text
    assert "completion tokens" in text


def test_a_missing_file_is_the_users_error(sample):
    with pytest.raises(InputError, match="no such file"):
        report(sample, sessions=[SessionFiles("sweep", "h100-box", power=sample.folder / "absent.parquet")])
    assert not (sample.folder / "report.html").exists()


def test_a_file_of_another_version_is_the_users_error(sample):
    for path in (sample.session.session, sample.session.model, sample.session.server_environment, sample.environment):
        before = path.read_text()
        path.write_text(json.dumps({**json.loads(before), "version": 2}))
        with pytest.raises(InputError, match=rf"{path}: is of version 2"):
            report(sample)
        path.write_text(before)


def test_a_file_that_is_no_summary(sample):
    (sample.folder / "other.json").write_text("[]")
    with pytest.raises(InputError, match="is not that of summary"):
        write_report(sample.folder / "report.html", sample.folder / "other.json", [])
