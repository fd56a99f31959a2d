"""What the load client took of the machine: counted where it can be, else modelled and said so."""

import msgspec
import pytest
import synthetic
from faults import Case
from synthetic import recompute

from inference_energy.analysis.client_cost import client_cost
from inference_energy.contracts.documents.session import LoadClient
from inference_energy.contracts.reason_codes import reason

WORKERS = [{"peak_rss_bytes": 30_000_000}, {"peak_rss_bytes": 40_000_000}]


def cost(cell="low", tokens=10_000, **changes):
    content = session(**changes)
    client = None if content["client"] is None else msgspec.convert(content["client"], LoadClient)
    return client_cost(client, content["machine_cpu"].get(cell, {}).get("busy_s"), cell, tokens)


def session(**changes):
    return {
        "client": {"cells": {"low": {"cpu_s": 0.5}}, "workers": WORKERS},
        "machine_cpu": {"low": {"busy_s": 50.0, "wall_s": 80.0}},
        **changes,
    }


def test_cpu_seconds_per_thousand_tokens_and_share_of_the_busy_machine():
    found = cost()
    assert found.figures["cpu_s_per_1k_output_tokens"].value == pytest.approx(0.05)
    assert found.figures["share_of_busy_cpu"].value == pytest.approx(0.01)
    assert (found.workers, found.peak_rss_bytes) == (2, 70_000_000)
    assert {figure.grade for figure in found.figures.values()} == {"counted"}


def test_what_was_not_recorded_is_not_given():
    assert cost(client=None) is None
    assert cost("other") is None
    found = cost(tokens=0, machine_cpu={}).figures
    assert found["cpu_s_per_1k_output_tokens"].reasons[0].code == "no_tokens"
    assert found["share_of_busy_cpu"].reasons[0].code == "client_energy_unknown"


def test_its_energy_is_its_share_of_the_measured_packages_and_modelled(tmp_path):
    case = Case(tmp_path, synthetic.build_session(tmp_path, sources=synthetic.NODE))
    case.edit_session(**session())
    low, high = recompute(case.raw, case.plan)["cells"]
    package_j = next(d["energy_j"] for d in low["devices"] if d["domain"] == "cpu_package")
    energy, share = low["client"]["figures"]["energy_j"], low["client"]["figures"]["share_of_energy"]
    assert (energy["value"], energy["grade"]) == (pytest.approx(0.01 * package_j), "modelled")
    assert share["value"] == pytest.approx(energy["value"] / low["figures"]["energy_total_j"]["value"])
    assert high["client"] is None
    assert not any(figure["grade"] == "modelled" for figure in low["figures"].values())


def test_a_modelled_cpu_is_no_sensor(tmp_path):
    case = Case(tmp_path, synthetic.build_session(tmp_path, sources=synthetic.MODELLED_CPU))
    case.edit_session(**session())
    figures = recompute(case.raw, case.plan)["cells"][0]["client"]["figures"]
    assert [r["code"] for r in figures["energy_j"]["reasons"]] == ["client_energy_unknown"]


def test_without_the_count_of_tokens_there_is_no_cost_of_one():
    missing = [reason("token_counts_missing", "The server gave none.")]
    content = session()
    found = client_cost(msgspec.convert(content["client"], LoadClient), 50.0, "low", 10_000, missing)
    figure = found.figures["cpu_s_per_1k_output_tokens"]
    assert (figure.value, found.output_tokens, figure.reasons) == (None, None, tuple(missing))
    assert found.figures["share_of_busy_cpu"].value == pytest.approx(0.01)
