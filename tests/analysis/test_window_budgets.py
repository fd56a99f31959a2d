"""Which terms stand in which figure's budget, and how large they are."""

import math

import pytest
import synthetic
from faults import Case
from nvml_rows import nvml_power
from synthetic import recompute

STATED = {"gain": 0.03, "offset_w": 2.0}
OWN = {"sensor gain", "window edges"}
LOAD = "fluctuation of the load"


def found_in(tmp_path, **session):
    truth = synthetic.build_session(tmp_path, windows=synthetic.LOW_HIGH[1:], **session)
    plan = synthetic.plan([truth])
    plan["analysis"]["uncertainty"] = STATED
    (cell,), (idle,) = (recompute(tmp_path, plan)[key] for key in ("cells", "idle"))
    return truth, cell, idle


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return found_in(tmp_path_factory.mktemp("raw"), make_power=nvml_power)


def terms(figure):
    return {term["name"]: term for term in figure["budget"]["terms"]}


def test_an_energy_is_that_of_this_window_so_it_holds_no_fluctuation(measured):
    _, cell, _ = measured
    figures = cell["figures"]
    assert set(terms(figures["energy_total_j"])) == {*OWN, "sensor offset"}
    for basis in ("active", "marginal"):
        # The offset cancels against that of the idle; the idle's own doubt comes in.
        assert set(terms(figures[f"energy_{basis}_j"])) == {*OWN, "idle fluctuation"}


def test_a_power_and_an_energy_per_token_stand_for_the_load_so_they_do(measured):
    _, cell, _ = measured
    for name in ("power_mean_w", "energy_total_per_output_token_j", "energy_active_per_request_j"):
        term = terms(cell["figures"][name])[LOAD]
        assert (term["kind"], term["dof"] > 3) == ("A", True)
        assert "block bootstrap" in term["basis"]
    assert set(terms(cell["figures"]["power_mean_w"])) == {*OWN, "sensor offset", LOAD}


def test_the_gain_on_an_energy_above_idle_is_that_of_the_difference(measured):
    _, cell, idle = measured
    figures = cell["figures"]
    for basis in ("total", "active", "marginal"):
        figure = figures[f"energy_{basis}_j"]
        assert terms(figure)["sensor gain"]["u"] == pytest.approx(0.03 * figure["value"], rel=1e-9)
    assert terms(figures["energy_active_j"])["sensor gain"]["u"] < terms(figures["energy_total_j"])["sensor gain"]["u"]
    seconds = figures["duration_s"]["value"]
    assert terms(figures["energy_total_j"])["sensor offset"]["u"] == pytest.approx(2.0 * seconds)
    own = terms(idle["cold_power_w"])["idle fluctuation"]["u"]
    assert terms(figures["energy_active_j"])["idle fluctuation"]["u"] == pytest.approx(own * seconds)


def test_what_is_divided_has_its_terms_divided(measured):
    _, cell, _ = measured
    figures = cell["figures"]
    whole, token = figures["energy_active_j"], figures["energy_active_per_output_token_j"]
    for name in OWN:
        scaled = terms(whole)[name]["u"] / figures["output_tokens"]["value"]
        assert terms(token)[name]["u"] == pytest.approx(scaled)
    kwh = figures["energy_active_kwh"]
    assert kwh["interval_95"] == pytest.approx([edge / 3.6e6 for edge in whole["interval_95"]])


def test_the_clients_count_against_the_servers_is_a_term_of_what_is_per_token(tmp_path):
    truth = synthetic.build_session(tmp_path, make_power=nvml_power)
    case = Case(tmp_path, truth)

    def one_percent_more(table):
        table.loc[table["name"] == "vllm:generation_tokens_total", "value"] *= 1.01
        return table

    case.edit("server_metrics", one_percent_more)
    _, cell = recompute(case.raw, case.plan)["cells"]
    figure = cell["figures"]["energy_total_per_output_token_j"]
    term = terms(figure)["token count"]
    assert (term["kind"], term["u"]) == ("B", pytest.approx(0.01 * figure["value"] / math.sqrt(3), rel=0.1))
    assert "token count" not in terms(cell["figures"]["energy_total_per_request_j"])


def test_intervals_hold_the_truth_of_an_unbiased_sensor(measured):
    truth, cell, idle = measured
    window, figures = truth.windows["high"], cell["figures"]
    seconds = window["duration_s"]
    for basis, subtracted_w in (("total", 0.0), ("active", truth.cold_w)):
        low, high = figures[f"energy_{basis}_j"]["interval_95"]
        assert low < window["energy_j"] - subtracted_w * seconds < high
    low, high = idle["cold_power_w"]["interval_95"]
    assert low < truth.cold_w < high


def test_modelled_power_has_no_interval(tmp_path):
    _, cell, idle = found_in(tmp_path, sources=synthetic.MODELLED_CPU)
    for name, figure in [*cell["figures"].items(), *idle.items()]:
        if name.startswith(("energy", "power", "carbon", "cold")):
            assert figure["valid"]
            assert (figure["interval_95"], figure["budget"]) == (None, None)


def test_devices_are_independent(tmp_path):
    two = (synthetic.Source(), synthetic.Source(device="GPU-1"))
    _, cell, _ = found_in(tmp_path, sources=two)
    total = cell["figures"]["energy_total_j"]
    assert terms(total)["sensor gain"]["u"] == pytest.approx(0.03 * total["value"] / math.sqrt(2), rel=1e-6)
    seconds = cell["figures"]["duration_s"]["value"]
    assert terms(total)["sensor offset"]["u"] == pytest.approx(2.0 * seconds * math.sqrt(2), rel=1e-6)
