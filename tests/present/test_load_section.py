"""The report's part on the load: rates, totals against the server's, the client's own cost, latency with intervals."""

import json
import re

import numpy as np
import pytest
from report_sample import make_sample, windows_of

from inference_energy.contracts.figure import Figure, Reason, missing_figure
from inference_energy.present.latency import latency_table, slo_table
from inference_energy.present.load_tables import client_table, counts_table
from inference_energy.present.plot_load_timeline import plot_load_timeline
from inference_energy.present.report import write_report
from inference_energy.present.report_inputs import SessionFiles, read_session_files
from inference_energy.present.window_tables import headlines


@pytest.fixture
def sample(tmp_path):
    return make_sample(tmp_path)


def counted(client, server, causes=(), explained=0):
    surplus = server - client
    return {
        "client": client,
        "server": server,
        "difference": -surplus,
        "explained": explained,
        "unexplained": surplus - explained,
        "causes": list(causes),
    }


def figure(value, unit="s", **more):
    return Figure(value, unit, "none", "client", more.pop("grade", "counted"), **more).as_dict()


def told(sample):
    """The sample's first cell with all that a session can record."""
    cell = sample.summary["cells"][0]
    cut = ("2 request(s) that were cut off, failed or gave no usage",)
    cell["checks"] |= {
        "whole_cell": {
            "why": None,
            "engine": "vllm",
            "tokens": {"generated": counted(900, 960, cut, 60), "prompt": counted(5000, 5000), "cached": None},
            "finished": {"length": {"client": 10, "server": 10}, "not ok": {"client": 2, "server": 1}},
        },
        "prompt_lengths": {"compared": 12, "different": 3, "share": 0.25, "mean_difference": 1.5},
        "limits": {"ttft_s": {"limit": 0.25, "over": 4, "of": 10}},
    }
    cell["figures"] |= {
        "goodput_share": figure(0.6, "share"),
        "goodput_requests_per_s": figure(2.4, "request/s"),
        "ttft_p50_s": figure(0.08, interval_95=(0.07, 0.1)),
        "ttft_p99_s": missing_figure("s", "none", "client", "counted", Reason("few_samples", "Needs 368.")).as_dict(),
    }
    cell["client"] = {
        "cpu_s": 1.25,
        "busy_cpu_s": 50.0,
        "output_tokens": 960,
        "workers": 1,
        "peak_rss_bytes": 60_000_000,
        "figures": {
            "cpu_s_per_1k_output_tokens": figure(0.0123, "s/1k tokens"),
            "share_of_busy_cpu": figure(0.025, "share"),
            "energy_j": figure(33.0, "J", grade="modelled"),
            "share_of_energy": figure(0.002, "share", grade="modelled"),
        },
    }
    return cell


def texts(table):
    return [[cell.text for cell in row.cells] for row in table.rows]


def test_totals_stand_beside_the_servers_with_what_explains_a_difference(sample):
    rows = texts(counts_table(windows_of([told(sample)])))
    assert rows[1][:4] == ["generated tokens", "900", "960", "−60"]
    assert rows[1][4] == "2 request(s) that were cut off, failed or gave no usage"
    assert rows[2] == ["prompt tokens", "5,000", "5,000", "0", "agree exactly"]
    assert "not told" in rows[3][1]
    assert rows[5][0] == "requests: not ok"
    assert "3 of 12 (25.0 %)" in rows[6][1]


def test_a_cell_without_a_comparison_says_why(sample):
    plain = sample.summary["cells"][1]
    assert "no such comparison" in texts(counts_table(windows_of([plain])))[1][1]
    plain["checks"]["whole_cell"] = {"why": "the server was restarted"}
    assert "not compared: the server was restarted" in texts(counts_table(windows_of([plain])))[1][1]


def test_what_nothing_explains_is_red(sample):
    cell = told(sample)
    cell["checks"]["whole_cell"]["tokens"]["prompt"] = counted(5000, 5100)
    kinds = {row.cells[0].text: row.cells[-1] for row in counts_table(windows_of([cell])).rows}
    assert (kinds["prompt tokens"].kind, kinds["prompt tokens"].text) == ("bad", "nothing recorded explains it")


def test_the_clients_cost_is_shown_and_its_energy_is_called_modelled(sample):
    table = client_table(windows_of([told(sample), sample.summary["cells"][1]]))
    assert len(table.rows) == 1
    row = table.rows[0].cells
    assert [cell.text for cell in row[1:5]] == ["1.25", "12.3", "2.50", "60"]
    assert [cell.tag for cell in row[5:]] == ["modelled", "modelled"]
    assert client_table(windows_of(sample.summary["cells"][1:])) is None


def test_percentiles_carry_their_intervals_and_missing_ones_their_reason(sample):
    table = latency_table(windows_of([told(sample)]))
    assert table.columns[1:4] == ["p50", "p90", "p99"]
    row = next(row.cells for row in table.rows if row.cells[0].text.startswith("TTFT from send"))
    assert row[0].text == "TTFT from send (ms)"
    assert row[1].text.replace("\u00a0", " ") == "80 [70 to 100]"
    assert (row[3].text, [table.reasons[note - 1] for note in row[3].notes]) == ("not given", ["Needs 368."])


def test_limits_are_a_table_only_where_there_are_some(sample):
    assert slo_table(windows_of(sample.summary["cells"][1:])) is None
    table = slo_table(windows_of([told(sample)]))
    assert table.columns[-1] == "TTFT over 0.25 s"
    assert [cell.text for cell in table.rows[0].cells[1:]] == ["60.0", "2.40", "not given", "4 of 10"]


def test_a_headline_has_the_highest_percentile_that_is_given(sample):
    told(sample)
    cards = headlines(windows_of(sample.summary["cells"][:2]))
    named = [[label for label, _ in card.other_figures if label.startswith("TTFT")] for card in cards]
    assert named == [["TTFT p50", "TTFT p90"], ["TTFT p50", "TTFT p99"]]


def test_the_course_shows_offered_sent_in_flight_and_first_tokens(sample):
    data = read_session_files(sample.session)
    drawn = {trace.name: trace for trace in plot_load_timeline(data, 0.2).data}
    assert set(drawn) == {"offered", "sent", "in flight", "TTFT", "limit of TTFT"}
    width = np.diff(drawn["sent"].x)[0]
    assert drawn["sent"].y.sum() * width == pytest.approx(len(data.requests))
    assert drawn["offered"].y.sum() * width == pytest.approx(len(data.requests))
    assert drawn["in flight"].y.min() >= 0
    assert drawn["in flight"].y[-1] == 0
    assert len(drawn["TTFT"].x) <= 2000
    assert set(drawn["limit of TTFT"].y) == {0.2}
    assert "limit of TTFT" not in {trace.name for trace in plot_load_timeline(data).data}


def test_a_closed_loop_offers_nothing(sample):
    content = json.loads(sample.session.session.read_text())
    plan = {"kind": "steady", "workload": "chat", "arrival": {"process": "closed"}}
    closed = dict.fromkeys(("q04", "q16", "q48", "prefill", "decode"), plan)
    sample.session.session.write_text(json.dumps(content | {"windows": closed}))
    drawn = {trace.name: trace for trace in plot_load_timeline(read_session_files(sample.session)).data}
    assert drawn["offered"].y.sum() == 0
    assert drawn["sent"].y.sum() > 0


def test_no_requests_no_course():
    assert plot_load_timeline(read_session_files(SessionFiles("s", "m"))) is None


def test_the_report_draws_limits_and_holds_the_tables(sample):
    told(sample)
    path = sample.folder / "report.html"
    write_report(path, sample.summary_path, [sample.session], [sample.environment])
    page = path.read_text()
    found = dict(re.findall(r'<script type="application/json" id="figure-([^"]+)">(.*?)</script>', page, re.DOTALL))
    names = [trace["name"] for trace in json.loads(found["latency"])["data"]]
    assert names.count("limit, 0.25 s") == 2  # of TTFT from the send and from the schedule
    for caption in ("Offered and achieved", "Client against server", "What the load client took itself"):
        assert caption in page
    assert "Power is modelled" not in page
