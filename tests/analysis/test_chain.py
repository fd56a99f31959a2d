"""The whole chain: it finds the truth that went in, and pandas alone agrees with it."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import synthetic
from synthetic import recompute
from typer.testing import CliRunner

from inference_energy.cli.main import app
from inference_energy.config.analysis import (
    AnalysisConfig,
    AttributionConfig,
    EnergyConfig,
    FitConfig,
    SteadyLoadConfig,
)
from inference_energy.contracts import receipts
from inference_energy.contracts.io import read_json, read_table, write_json
from inference_energy.errors import InputError

pytestmark = pytest.mark.slow

KIND = {"gpu": (synthetic.GPU, 1.0), "node": (synthetic.NODE, 1.5), "cpu": (synthetic.MODELLED_CPU, 1.0)}


@pytest.fixture(scope="module", params=list(KIND))
def experiment(request, tmp_path_factory):
    raw = tmp_path_factory.mktemp("raw")
    sources, parts = KIND[request.param]
    designed = (*synthetic.LOW_HIGH, *(w for w in synthetic.DESIGNED if w.kind != "steady"))
    mid = (synthetic.WindowSpec("mid", process="constant", rate_qps=4.0, cached_share=0.5),)
    truths = [
        synthetic.build_session(raw, windows=designed, sources=sources),
        synthetic.build_session(raw, session="extra", windows=mid, sources=sources, seed=2),
    ]
    plan = synthetic.plan(truths)
    return raw, truths, parts, plan, recompute(raw, plan)


def figure(cell, name):
    found = cell["figures"][name]
    assert found["valid"], (name, found["reasons"])
    return found["value"]


def truth_cells(experiment):
    _, truths, _, _, found = experiment
    named = {f"{t.folder.name}.{name}": (t, window) for t in truths for name, window in t.windows.items()}
    assert [cell["cell"] for cell in found["cells"]] == list(named)
    return [(cell, *named[cell["cell"]]) for cell in found["cells"]]


def test_energy_and_idle_are_those_that_went_in(experiment):
    parts = experiment[2]
    for cell, truth, window in truth_cells(experiment):
        duration_s = window["duration_s"]
        assert figure(cell, "duration_s") == pytest.approx(duration_s)
        assert figure(cell, "energy_total_j") == pytest.approx(parts * window["energy_j"], rel=2e-3)
        active = parts * (window["energy_j"] - truth.cold_w * duration_s)
        marginal = parts * (window["energy_j"] - truth.loaded_w * duration_s)
        assert figure(cell, "energy_active_j") == pytest.approx(active, rel=3e-3)
        assert figure(cell, "energy_marginal_j") == pytest.approx(marginal, rel=5e-3)
        assert figure(cell, "energy_total_kwh") == pytest.approx(figure(cell, "energy_total_j") / 3.6e6)
        assert figure(cell, "power_mean_w") == pytest.approx(parts * window["power_w"], rel=2e-3)


def test_tokens_requests_and_rates_are_those_that_went_in(experiment):
    for cell, _, window in truth_cells(experiment):
        for name in ("output_tokens", "prompt_tokens", "cached_tokens", "requests"):
            assert figure(cell, name) == window[name]
        assert figure(cell, "output_tokens_per_s") == pytest.approx(window["output_tokens"] / window["duration_s"])
        per_token = figure(cell, "energy_total_per_output_token_j")
        assert per_token == pytest.approx(figure(cell, "energy_total_j") / window["output_tokens"])
        counted = cell["checks"]["reconciliation"]["generated"]
        assert abs(counted["difference"]) <= 0.02 * counted["server"]
        # In the shorter windows the counters, read once a second, cannot tell.
        assert counted["agrees"] is (True if counted["allowance"] <= 0.04 * counted["server"] else None)


def test_boundary_and_grade_travel_to_every_figure(experiment):
    *_, found = experiment
    grades = {"gpu": "counter", "gpu + cpu_package + dram": "counter", "cpu (modelled)": "modelled"}
    for cell in found["cells"]:
        boundary = cell["figures"]["energy_total_j"]["boundary"]
        for name, content in cell["figures"].items():
            if name.startswith(("energy", "power", "carbon", "water")):
                assert content["boundary"].startswith(boundary)
                assert content["grade"] == grades[boundary]
    summed = {d["domain"] for cell in found["cells"] for d in cell["devices"] if d["summed"]}
    assert not summed & {"gpu_memory", "psys"}


def test_the_fit_finds_the_model_that_went_in(experiment):
    parts, found = experiment[2], experiment[4]
    (fit,) = found["fits"]
    coefficients = fit["models"]["power_term"]["coefficients"]
    assert coefficients["power"]["value"] == pytest.approx(parts * 300.0, rel=5e-3)
    assert coefficients["prompt"]["value"] == pytest.approx(parts * 0.006, rel=2e-2)
    assert coefficients["generated"]["value"] == pytest.approx(parts * 0.08, rel=2e-2)
    assert fit["models"]["power_term"]["leave_one_out"]["worst_abs_relative_error"] < 0.02
    two_term = fit["models"]["two_term"]
    assert two_term["refused"] or two_term["mean_abs_relative_error"] > 0.2
    assert fit["missing_cells"] == []


def test_pandas_alone_finds_the_same(experiment):
    """From the raw Parquet files with none of the package's code."""
    raw, truths, _, plan, found = experiment
    cells = {cell["cell"]: cell for cell in found["cells"]}
    for truth in truths:
        phases, requests, log = (
            pq.read_table(truth.folder / f"{name}.parquet").to_pandas() for name in ("phases", "requests", "power")
        )
        idle = pq.read_table(raw / "bench" / "idle" / "small" / "power.parquet").to_pandas()
        for row in phases[phases["phase"] == "window"].itertuples():
            start_ns, end_ns = row.start_ns + 5_000_000_000, row.end_ns
            counted = log[log["domain"].isin(["gpu", "cpu"]) & log["energy_counter_j"].notna()]["timestamp_ns"]
            start_ns, end_ns = counted[counted >= start_ns].min(), counted[counted <= end_ns].max()
            total_j, cold_w = 0.0, 0.0
            for domain in ("gpu", "cpu_package", "dram", "cpu"):
                total_j += channel_energy_j(log[log["domain"] == domain], start_ns, end_ns)
                own = idle[idle["domain"] == domain]
                if len(own):
                    times_ns = own.loc[own["energy_counter_j"].notna(), "timestamp_ns"]
                    first_ns, last_ns = times_ns.min(), times_ns.max()
                    cold_w += channel_energy_j(own, first_ns, last_ns) / ((last_ns - first_ns) / 1e9)
            tokens = prompts = 0
            for r in requests[requests["cell"] == row.cell].itertuples():
                times = np.linspace(r.first_token_ns, r.last_token_ns, int(r.completion_tokens))
                tokens += int(((times >= start_ns) & (times < end_ns)).sum())
                prompts += int(r.prompt_tokens) * (start_ns <= r.first_token_ns < end_ns)
            cell = cells[f"{truth.folder.name}.{row.cell}"]
            duration_s = (end_ns - start_ns) / 1e9
            assert figure(cell, "energy_total_j") == pytest.approx(total_j, rel=1e-9)
            assert figure(cell, "energy_active_j") == pytest.approx(total_j - cold_w * duration_s, rel=1e-6)
            assert figure(cell, "energy_total_per_output_token_j") == pytest.approx(total_j / tokens, rel=1e-9)
            assert figure(cell, "energy_total_per_prompt_token_j") == pytest.approx(total_j / prompts, rel=1e-9)
            grams = total_j / 3.6e6 * 344.0 * plan["impact"]["pue"]
            assert figure(cell, "carbon_total_g") == pytest.approx(grams, rel=1e-9)
            assert figure(cell, "carbon_per_1k_output_tokens_g") == pytest.approx(grams / tokens * 1000, rel=1e-9)
            assert figure(cell, "water_site_l") == pytest.approx(total_j / 3.6e6 * 0.27, rel=1e-9)
            done = requests[(requests["cell"] == row.cell) & requests["last_token_ns"].between(start_ns, end_ns - 1)]
            ttft_s = (done["first_token_ns"] - done["sent_ns"]) / 1e9
            if len(done) < 100:
                assert figure(cell, "ttft_p50_s") == pytest.approx(ttft_s.quantile(0.5))
                continue
            assert figure(cell, "ttft_p90_s") == pytest.approx(ttft_s.quantile(0.9))
            low, high = cell["figures"]["ttft_p90_s"]["interval_95"]
            assert ttft_s.quantile(0.8) < low < high < ttft_s.quantile(0.98)
            assert figure(cell, "energy_total_per_request_j") == pytest.approx(total_j / len(done), rel=1e-9)


def channel_energy_j(rows: pd.DataFrame, start_ns: int, end_ns: int) -> float:
    """The counter's difference."""
    if rows.empty:
        return 0.0
    time_s = (rows["timestamp_ns"] - start_ns) / 1e9
    window_s = (end_ns - start_ns) / 1e9
    counted = rows["energy_counter_j"].notna()
    at = np.interp([0, window_s], time_s[counted], rows.loc[counted, "energy_counter_j"])
    return float(at[1] - at[0])


def test_an_attached_endpoint_lacks_what_needs_the_server_off(tmp_path):
    truth = synthetic.build_session(tmp_path, sources=synthetic.MODELLED_CPU, cold_w=None, mode="attach")
    found = recompute(tmp_path, synthetic.plan([truth]))
    figures = found["cells"][0]["figures"]
    assert figures["energy_active_j"]["value"] is None
    assert "already running" in figures["energy_active_j"]["reasons"][0]["detail"]
    assert figures["energy_total_j"]["valid"]
    assert figures["energy_marginal_j"]["valid"]
    assert found["idle"][0]["post_power_w"]["reasons"][0]["code"] == "post_idle_missing"
    assert found["sessions"][0]["launch"]["ok"]
    assert "two_term" in found["fits"][0]["models"]


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_the_stages_give_what_recompute_gives(experiment, tmp_path):
    raw, truths, _, plan, found = experiment
    analysis = AnalysisConfig.model_validate(plan["analysis"])
    impact = json.dumps(plan["impact"])

    def spec(model):
        return json.dumps(analysis.model_dump(include=set(model.model_fields)))

    idle = raw / "bench" / "idle" / "small"
    lists: dict[str, list] = {k: [] for k in ("session", "launch", "warmup", "steady-load", "energy", "carbon")}
    for truth in reversed(truths):
        out = tmp_path / truth.folder.name
        raw_files = {name: truth.folder / f"{name}.parquet" for name in ("phases", "requests", "power")}
        session = truth.folder / "session.json"
        known = ("--session", session, "--phases", raw_files["phases"])
        invoke("stage", "launch", *known, "--output", out / "launch.json")
        invoke("stage", "warmup", *known, "--requests", raw_files["requests"], "--output", out / "warmup.json")
        load = ("--server-metrics", truth.folder / "server_metrics.parquet", "--requests", raw_files["requests"])
        power = ("--power", raw_files["power"])
        steady = out / "steady_load.json"
        invoke("stage", "steady-load", "--spec", spec(SteadyLoadConfig), *known, *load, *power, "--output", steady)
        cold = ("--idle", idle / "idle.json", "--idle-power", idle / "power.parquet")
        energy = out / "energy.json"
        given = (*known, *power, *cold, "--steady-load", steady)
        invoke("stage", "integrate", "--spec", spec(EnergyConfig), *given, "--output", energy)
        charged = ("--requests", raw_files["requests"], "--energy", energy, "--output", out / "receipts.parquet")
        invoke("stage", "attribute", "--spec", spec(AttributionConfig), *charged)
        invoke("stage", "carbon", "--spec", impact, "--energy", energy, "--output", out / "carbon.json")
        for name, held in lists.items():
            held.append(session if name == "session" else out / f"{name.replace('-', '_')}.json")
        cells = {cell["window"]["name"]: cell for cell in found["cells"] if cell["session"] == truth.folder.name}
        table = read_table(out / "receipts.parquet", receipts.SCHEMA)
        for name, group in table.groupby("cell"):
            assert group["energy_j"].sum() == pytest.approx(figure(cells[name], "energy_total_j"), rel=1e-9)

    def repeated(*names):
        return [word for name in names for path in lists[name] for word in (f"--{name}", path)]

    fitted = repeated("energy", "steady-load")
    invoke("stage", "fit", "--spec", spec(FitConfig), *fitted, "--output", tmp_path / "fit.json")
    every = repeated(*lists)
    summary = tmp_path / "summary.json"
    more = {"version": 1, "experiment": "synthetic", "cells": [], "sweeps": [], "token_costs": [], "fronts": []}
    write_json(tmp_path / "metrics.json", more)
    whole = ("--fit", tmp_path / "fit.json", "--metrics", tmp_path / "metrics.json")
    order = json.dumps({"experiment": plan["experiment"], "sessions": plan["sessions"]})
    invoke("stage", "summary", "--spec", order, *every, *whole, "--output", summary)
    assert read_json(summary) == json.loads(json.dumps({**found, "metrics": more}))


def test_stages_name_what_is_wrong(experiment, tmp_path):
    _, truths, _, plan, _ = experiment
    session = truths[0].folder / "session.json"
    write_json(tmp_path / "energy.json", {"session": "s", "machine": "m", "server": "v", "windows": {}})
    energy = ("--energy", tmp_path / "energy.json", "--output", tmp_path / "out")
    with pytest.raises(InputError, match=r"impact\.pue"):
        invoke("stage", "carbon", "--spec", json.dumps({**plan["impact"], "pue": 0.5}), *energy)
    with pytest.raises(InputError, match="not JSON"):
        invoke("stage", "carbon", "--spec", "{", *energy)
    with pytest.raises(InputError, match="no such file"):
        invoke("stage", "launch", "--session", session, "--phases", tmp_path / "none", "--output", tmp_path / "out")
    write_json(tmp_path / "session.json", {"session": "s"})
    with pytest.raises(InputError, match="missing required field `machine`"):
        files = ("--session", tmp_path / "session.json", "--phases", truths[0].folder / "phases.parquet")
        invoke("stage", "launch", *files, "--output", tmp_path / "out")
    with pytest.raises(InputError, match=r"energy\.json: its content is not that of energy\.json"):
        other = tmp_path / "steady.json"
        names = {"version": 1, "session": "other", "machine": "m", "server": "v"}
        write_json(other, {**names, "client": None, "windows": {}})
        invoke("stage", "fit", "--spec", FitConfig().model_dump_json(), *energy, "--steady-load", other)
    assert not (tmp_path / "out").exists()
