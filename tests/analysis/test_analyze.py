"""`analyze`: two logs in, figures out, and a clear word about what is wrong with a log."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import synthetic
from test_chain import invoke

from inference_energy.analysis.power_log_file import read_power_log
from inference_energy.contracts import power, requests
from inference_energy.contracts.io import read_json, read_metadata, read_table, write_table
from inference_energy.errors import InputError

NOW_S = 1_780_000_000.0


class Logs:
    """A power log at 10 Hz, 200 W, over 30 s, and three requests from second 5 to 25."""

    def __init__(self, folder):
        self.folder = folder
        time_s = NOW_S + np.arange(0, 30.05, 0.1)
        self.power = pd.DataFrame({"time": time_s, "power_W": 200.0, "gpu_util": 90, "mem_used_bytes": 1_000_000})
        self.requests = pd.DataFrame(
            {
                "timestamp": [NOW_S + 5, NOW_S + 10, NOW_S + 12],
                "prompt_tokens": [100, 200, 100],
                "completion_tokens": [50, 30, 20],
                "latency": [4.0, 15.0, 2.5],
            }
        )

    def analyze(self, *options):
        active, asked, output = self.folder / "active.csv", self.folder / "requests.csv", self.folder / "summary.json"
        self.power.to_csv(active, index=False)
        self.requests.to_csv(asked, index=False)
        self.shown = invoke("analyze", "--power-log", active, "--requests-log", asked, "--output", output, *options)
        return read_json(output)

    def values(self, *options):
        return {name: figure["value"] for name, figure in self.analyze(*options)["figures"].items()}


@pytest.fixture
def logs(tmp_path):
    return Logs(tmp_path)


def test_energy_per_token_and_request(logs):
    found = logs.values("--idle-power", 50)
    assert found["duration_s"] == pytest.approx(20)
    assert found["energy_total_j"] == pytest.approx(4000, rel=1e-6)
    assert found["energy_active_j"] == pytest.approx(3000, rel=1e-6)
    assert found["energy_total_kwh"] == pytest.approx(4000 / 3.6e6)
    assert found["power_mean_w"] == pytest.approx(200)
    assert (found["output_tokens"], found["prompt_tokens"], found["requests"]) == (100, 400, 3)
    assert found["energy_total_per_output_token_j"] == pytest.approx(40)
    assert found["energy_active_per_output_token_j"] == pytest.approx(30)
    assert found["energy_total_per_prompt_token_j"] == pytest.approx(10)
    assert found["energy_total_per_request_j"] == pytest.approx(4000 / 3)


def test_active_energy_needs_an_idle_power(logs):
    result = logs.analyze()
    figure = result["figures"]["energy_active_j"]
    assert figure["value"] is None
    assert "--idle-power" in figure["reasons"][0]["detail"]
    assert result["idle_power_w"] is None
    assert "carbon_total_g" not in result["figures"]


def test_the_table_shows_figures_and_what_is_not_given(logs):
    logs.analyze()
    assert "energy_total_j" in logs.shown
    assert "4000" in logs.shown
    assert "not given" in logs.shown


def test_a_tail_of_idle_in_the_log_is_not_counted(logs):
    logs.power.loc[logs.power["time"] > NOW_S + 25.05, "power_W"] = 900.0
    assert logs.values()["energy_total_j"] == pytest.approx(4000, rel=1e-6)


def test_carbon_on_request(logs):
    found = logs.values("--intensity", 344, "--pue", 1.2, "--idle-power", 50)
    assert found["carbon_total_g"] == pytest.approx(4000 / 3.6e6 * 344 * 1.2)
    assert found["carbon_active_g"] == pytest.approx(3000 / 3.6e6 * 344 * 1.2)
    assert found["carbon_per_1k_output_tokens_g"] == pytest.approx(40_000 / 3.6e6 * 344 * 1.2)
    assert "carbon_marginal_g" not in found


def test_without_columns_of_ours_power_is_sampled_and_its_boundary_is_unknown(logs):
    result = logs.analyze()
    assert (result["boundary"], result["grade"]) == ("unknown", "sampled")


def test_the_logs_own_grade_and_source_are_kept(logs):
    logs.power["grade"], logs.power["source"] = "modelled", "modelled"
    figure = logs.analyze()["figures"]["energy_total_per_output_token_j"]
    assert (figure["boundary"], figure["grade"]) == ("cpu (modelled)", "modelled")
    assert "modelled" in logs.shown


def test_unsorted_logs_and_empty_power_cells(logs):
    logs.power.loc[100, "power_W"] = np.nan
    logs.power = logs.power.sample(frac=1, random_state=0)
    assert logs.values()["energy_total_j"] == pytest.approx(4000, rel=1e-6)


@pytest.mark.parametrize(
    ("cut", "text"),
    [
        (lambda p: p[p["time"] > NOW_S + 6.95], r"2\.\d* s are missing at its start"),
        (lambda p: p[p["time"] < NOW_S + 23.95], r"1\.\d* s at its end"),
        (lambda p: p[p["time"] < NOW_S - 1], "no row has both"),
        (lambda p: p.drop(columns="power_W"), r"lacks the column\(s\) power_W"),
        (lambda p: p.drop(columns="time"), r"lacks the column\(s\) time"),
        (lambda p: p.assign(power_W="much"), "column power_W has something that is not a number"),
        (lambda p: p.assign(grade="good"), "column grade must hold"),
        (lambda p: p.assign(power_W=np.inf), "column power_W has infinite"),
    ],
)
def test_power_logs_that_cannot_be_used(logs, cut, text):
    logs.power = cut(logs.power)
    with pytest.raises(InputError, match=text):
        logs.analyze()
    assert not (logs.folder / "summary.json").exists()


@pytest.mark.parametrize(
    ("cut", "text"),
    [
        (lambda r: r.drop(columns="latency"), r"lacks the column\(s\) latency"),
        (lambda r: r.drop(columns="completion_tokens"), r"lacks the column\(s\) completion_tokens"),
        (lambda r: r[:0], "holds no request"),
        (lambda r: r.assign(latency=-1.0), "column latency has negative"),
        (lambda r: r.assign(timestamp=np.nan), "column timestamp has empty"),
        (lambda r: r[:1].assign(latency=0.0), "span no time"),
    ],
)
def test_request_logs_that_cannot_be_used(logs, cut, text):
    logs.requests = cut(logs.requests)
    with pytest.raises(InputError, match=text):
        logs.analyze()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--idle-power", -1), "--idle-power"),
        (("--pue", 0.9), "--pue"),
        (("--pue", "nan"), "--pue"),
        (("--intensity", "inf"), "--intensity"),
        (("--intensity", -5), "--intensity"),
        (("--power-log", "x.txt"), "must end in .csv or .parquet"),
        (("--requests-log", "none.csv"), "no such file"),
        (("--output", "summary.csv"), "must end in .json"),
    ],
)
def test_options_that_cannot_be_used(logs, options, text):
    with pytest.raises(InputError, match=text):
        logs.analyze(*options)


@pytest.mark.parametrize(
    ("spoil", "figure", "code"),
    [
        (lambda logs: logs.spoil_power(hole=True), "energy_total_j", "gap"),
        (lambda logs: logs.spoil_power(level=40.0), "energy_active_j", "below_idle"),
        (lambda logs: logs.spoil_power(level=0.0), "energy_total_j", "stuck_sensor"),
        (lambda logs: logs.from_nvml(200.0), "power_mean_w", "stuck_sensor"),
        (
            lambda logs: logs.spoil_requests(status=["ok", "ok", "failed"]),
            "energy_total_per_output_token_j",
            "failed_requests",
        ),
        (lambda logs: logs.spoil_requests(completion_tokens=[1, 2, None]), "output_tokens", "token_counts_missing"),
        (lambda logs: logs.spoil_requests(completion_tokens=0), "energy_total_per_output_token_j", "no_tokens"),
    ],
)
def test_figures_that_cannot_be_trusted_are_not_given(tmp_path, spoil, figure, code):
    logs = Spoiled(tmp_path)
    spoil(logs)
    found = logs.analyze("--idle-power", 50)["figures"][figure]
    assert found["value"] is None
    assert code in [r["code"] for r in found["reasons"]]


def test_the_reason_stands_where_the_number_would(tmp_path):
    logs = Spoiled(tmp_path)
    logs.spoil_power(level=0.0)
    logs.analyze("--boundary", "gpu")
    assert "stuck_sensor: gpu of all" in logs.shown
    assert not any(line.split()[:1] == ["energy_total_j"] for line in logs.shown.splitlines())


def test_energy_comes_with_what_the_sensor_leaves_open(logs):
    figure = logs.analyze("--boundary", "gpu")["figures"]["energy_total_j"]
    terms = {term["name"]: term["u"] for term in figure["budget"]["terms"]}
    assert terms == {"sensor gain": pytest.approx(0.029 * 4000), "sensor offset": pytest.approx(20.0)}
    low, high = figure["interval_95"]
    assert (low, high) == (pytest.approx(3769, abs=3), pytest.approx(4231, abs=3))
    assert f"{low:.5g} to {high:.5g}" in logs.shown


class Spoiled(Logs):
    def from_nvml(self, level):
        self.power["power_W"], self.power["source"], self.power["grade"] = level, "nvml", "sampled"

    def spoil_power(self, hole=False, level=200.0):
        self.power["power_W"] = level
        if hole:
            self.power = self.power[(self.power["time"] < NOW_S + 12) | (self.power["time"] > NOW_S + 14)]

    def spoil_requests(self, **columns):
        self.requests = self.requests.assign(**columns)


@pytest.mark.parametrize(("counter", "apart"), [(False, 1e-5), (True, 5e-3)])
def test_contract_files_give_what_csv_gives(tmp_path, counter, apart):
    """The same session as Parquet and as CSV, which holds the average's readings at the times that they stand for."""
    truth = synthetic.build_session(tmp_path / "raw", windows=(synthetic.WindowSpec("chat", duration_s=20.0),))
    asked = read_table(truth.folder / "requests.parquet", requests.SCHEMA)
    write_table(tmp_path / "r.parquet", asked[asked["cell"] == "chat"], requests.SCHEMA, clock_anchor=synthetic.ANCHOR)
    log = read_table(truth.folder / "power.parquet", power.SCHEMA)
    stamps = {key: value for key, value in read_metadata(truth.folder / "power.parquet").items() if key != "version"}
    kept = log if counter else log[log["energy_counter_j"].isna()]
    write_table(tmp_path / "p.parquet", kept, power.SCHEMA, **stamps)
    log = log[(log["domain"] == "gpu") & log["power_average_w"].notna()]
    unix_s = (synthetic.UNIX_NS - synthetic.ORIGIN_NS) / 1e9
    table = pd.DataFrame({"time": log["timestamp_ns"] / 1e9 + unix_s - 0.5, "power_W": log["power_average_w"]})
    table.to_csv(tmp_path / "p.csv", index=False)
    chat = asked[asked["cell"] == "chat"]
    pd.DataFrame(
        {
            "timestamp": chat["sent_ns"] / 1e9 + unix_s,
            "prompt_tokens": chat["prompt_tokens"],
            "completion_tokens": chat["completion_tokens"],
            "latency": (chat["end_ns"] - chat["sent_ns"]) / 1e9,
        }
    ).to_csv(tmp_path / "r.csv", index=False)
    results = []
    for power_log, request_log in ((tmp_path / "p.parquet", "r.parquet"), (tmp_path / "p.csv", "r.csv")):
        output = tmp_path / "out.json"
        given = ("--power-log", power_log, "--requests-log", tmp_path / request_log, "--output", output)
        invoke("analyze", *given, "--idle-power", 70)
        results.append({name: f["value"] for name, f in read_json(output)["figures"].items()})
    assert results[0] == pytest.approx(results[1], rel=apart)
    assert results[0]["output_tokens"] == chat["completion_tokens"].sum()


@pytest.mark.parametrize(
    ("anchor", "said"),
    [
        (b"\xff\xfe", "clock_anchor"),
        (b"[" * 100_000, "clock_anchor"),
        (b'{"unix_ns": "now", "monotonic_ns": 1}', "clock_anchor"),
        (b'{"unix_ns": 1e30, "monotonic_ns": 1}', "clock_anchor"),
    ],
)
def test_parquet_with_a_clock_anchor_that_is_none_is_refused(tmp_path, anchor, said):
    truth = synthetic.build_session(tmp_path / "raw")
    table = pq.read_table(truth.folder / "power.parquet")
    kept = {key: value for key, value in table.schema.metadata.items() if key != b"clock_anchor"}
    pq.write_table(table.replace_schema_metadata({**kept, b"clock_anchor": anchor}), tmp_path / "p.parquet")
    with pytest.raises(InputError, match=said):
        read_power_log(tmp_path / "p.parquet", "average")


def test_parquet_without_a_clock_anchor_cannot_be_placed(tmp_path):
    truth = synthetic.build_session(tmp_path / "raw")
    asked = read_table(truth.folder / "requests.parquet", requests.SCHEMA)
    write_table(tmp_path / "r.parquet", asked, requests.SCHEMA)
    with pytest.raises(InputError, match="clock_anchor"):
        given = ("--power-log", truth.folder / "power.parquet", "--requests-log", tmp_path / "r.parquet")
        invoke("analyze", *given, "--output", tmp_path / "out.json")
