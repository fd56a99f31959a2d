"""Metrics of one window, by hand: 20 s at 300 W, a request of 100 tokens a second: 6000 J, 2000 tokens, 20 requests."""

import math

import numpy as np
import pandas as pd
import pytest
from made_cells import DURATION_S, SECOND, START_NS, UNCERTAINTY, codes, made_cell, measured, model_of, without

from inference_energy.config.analysis import EmbodiedConfig
from inference_energy.contracts.figure import Figure
from inference_energy.metrics.energy_delay import energy_delay
from inference_energy.metrics.energy_per_token import energy_per_token
from inference_energy.metrics.goodput_per_joule import goodput_per_joule
from inference_energy.metrics.ml_ecolyzer_ess import ml_ecolyzer_ess
from inference_energy.metrics.request_energy import request_energy
from inference_energy.metrics.sci import sci
from inference_energy.metrics.uncertainty import inverse
from inference_energy.metrics.water import water_per_token

EMBODIED = EmbodiedConfig(total_kg=1500.0, lifetime_years=4.0, share=0.25, source="invented")


def terms(figure):
    return {term.name: term.u for term in figure.budget.terms}


def test_tokens_for_energy_on_every_basis():
    found = energy_per_token(made_cell())
    # Total 3 J, active 2.5 J, marginal 2 J a token.
    assert found["energy_total_per_1k_output_tokens_wh"].value == pytest.approx(3 * 1000 / 3600)
    assert found["efficiency_total_tokens_per_j"].value == pytest.approx(1 / 3)
    assert found["efficiency_active_tokens_per_kwh"].value == pytest.approx(1.44e6)
    assert found["efficiency_marginal_tokens_per_j"].value == pytest.approx(0.5)
    assert (found["efficiency_active_tokens_per_j"].basis, found["efficiency_active_tokens_per_j"].unit) == (
        "active",
        "token/J",
    )


def test_an_inverse_turns_the_interval_round():
    figure = inverse(measured(4.0, "J/token"), 1.0, "token/J")
    half = 1.959964 * 0.12
    assert figure.interval_95 == pytest.approx((1 / (4 + half), 1 / (4 - half)))
    assert terms(figure)["sensor gain"] == pytest.approx(0.12 / 16)


def test_an_inverse_of_what_may_be_zero_is_not_given():
    figure = inverse(measured(4.0, "J/token", gain=0.6), 1.0, "token/J")
    assert (figure.value, codes(figure)) == (None, ["interval_reaches_zero"])


def test_a_missing_energy_takes_all_that_follows_with_its_reason():
    cell = without(without(made_cell(good_per_s=1), "energy_total_per_output_token_j"), "energy_total_j")
    for figure in (
        energy_per_token(cell)["efficiency_total_tokens_per_j"],
        energy_delay(cell)["energy_delay_total_per_token_j_s"],
        request_energy(cell, UNCERTAINTY)["request_energy_p50_j"],
        goodput_per_joule(cell)["goodput_total_tokens_per_j"],
        water_per_token(cell)["water_site_per_1k_output_tokens_l"],
    ):
        assert (figure.value, codes(figure)) == (None, ["gap"])


def test_percentiles_are_of_whole_requests():
    found = request_energy(made_cell(), UNCERTAINTY)
    # The requests that were sent before the window are left out: 2 s long, so the first two.
    figure = found["request_energy_p50_j"]
    assert figure.value == pytest.approx(300.0)
    assert "18 of the 20" in figure.reasons[0].detail
    half = 1.959964 * 0.03 * 300
    assert figure.interval_95 == pytest.approx((300 - half, 300 + half))
    assert codes(found["request_energy_p99_j"]) == ["few_samples"]


def test_receipts_sum_to_the_window():
    cell = made_cell()
    assert cell.receipts["energy_j"].sum() == pytest.approx(cell.figures["energy_total_j"].value)


def test_shares_of_a_request():
    cell = made_cell()
    found = request_energy(cell, UNCERTAINTY)
    # 50 W of 300 W; the gain of the one card errs in both and cancels, the offset is stated as none.
    assert found["request_energy_idle_share"].value == pytest.approx(1 / 6)
    assert found["request_energy_idle_share"].interval_95 is None
    assert codes(found["request_energy_prefill_share"]) == ["not_split"]
    split = cell.receipts.assign(prefill_energy_j=30.0, decode_energy_j=270.0)
    found = request_energy(made_cell(receipts=split), UNCERTAINTY)
    assert found["request_energy_prefill_share"].value == pytest.approx(0.1)
    assert found["request_energy_decode_share"].value == pytest.approx(0.9)


def test_goodput_per_joule():
    found = goodput_per_joule(made_cell(good_per_s=1, requests_per_s=2, power_w=400.0))
    # 8000 J for 20 good requests of 40, and their 2000 tokens.
    assert found["goodput_total_requests_per_j"].value == pytest.approx(20 / 8000)
    assert found["goodput_total_tokens_per_j"].value == pytest.approx(2000 / 8000)
    assert found["goodput_marginal_tokens_per_j"].value == pytest.approx(2000 / 6000)


def test_goodput_fluctuates_with_what_was_good():
    cell = made_cell(good_per_s=1)
    wave = {**cell.bins, "good_output_tokens": 100 * (1 + 0.5 * np.sin(np.arange(DURATION_S) * 2.1))}
    name = "goodput_total_tokens_per_j"
    even, uneven = (goodput_per_joule(made_cell(good_per_s=1, bins=bins))[name] for bins in (cell.bins, wave))
    assert "fluctuation of the load" not in terms(even)
    assert terms(uneven)["fluctuation of the load"] > 0.01 * uneven.value


def test_uneven_work_under_even_power_is_the_same_share_on_every_basis():
    cell = made_cell(good_per_s=1)
    wave = {**cell.bins, "good_output_tokens": 100 * (1 + 0.5 * np.sin(np.arange(DURATION_S) * 2.1))}
    found = goodput_per_joule(made_cell(good_per_s=1, bins=wave))
    figures = [found[f"goodput_{basis}_tokens_per_j"] for basis in ("total", "active", "marginal")]
    first, *others = [terms(figure)["fluctuation of the load"] / figure.value for figure in figures]
    assert others == pytest.approx([first, first], rel=1e-6)


def test_goodput_without_limits_or_without_a_good_request():
    assert codes(goodput_per_joule(made_cell())["goodput_total_requests_per_j"]) == ["no_limits"]
    assert codes(goodput_per_joule(made_cell(good_per_s=0))["goodput_active_tokens_per_j"]) == ["no_requests"]
    assert codes(goodput_per_joule(made_cell(good_per_s=0))["goodput_active_requests_per_j"]) == ["no_requests"]


def test_energy_delay_products():
    found = energy_delay(made_cell())
    # 300 J a request times 2 s; 3 J a token times 1 s / 99 tokens.
    assert found["energy_delay_total_per_request_j_s"].value == pytest.approx(600.0)
    assert found["energy_delay_total_per_token_j_s"].value == pytest.approx(3 / 99)
    assert found["energy_delay_marginal_per_request_j_s"].value == pytest.approx(400.0)


def test_what_fluctuates_together_cancels_in_a_product():
    """Power that follows the requests does not make J a request uncertain; taken as independent it would."""
    cell = made_cell()
    wave = 1 + 0.5 * np.sin(np.arange(DURATION_S) * 2.1)
    together = {**cell.bins, "energy_total_j": 300 * wave, "requests": wave, "output_tokens": 100 * wave}
    apart = {**cell.bins, "energy_total_j": 300 * wave}
    joint, alone = (
        energy_delay(made_cell(bins=bins, own=0.5))["energy_delay_total_per_token_j_s"] for bins in (together, apart)
    )
    assert terms(joint).get("fluctuation of the load", 0.0) < 1e-9
    assert terms(alone)["fluctuation of the load"] > 1e-4


def test_a_latency_that_is_not_there():
    cell = made_cell(tokens_per_request=1)
    found = energy_delay(cell)
    assert codes(found["energy_delay_total_per_token_j_s"]) == ["no_requests"]
    assert found["energy_delay_total_per_request_j_s"].valid


def test_software_carbon_intensity_as_in_the_docs():
    found = sci(made_cell(), EMBODIED)
    # E I = 6000 J at 360 g/kWh = 0.6 g; M = 1.5e6 g * 20 s / (4 * 365 * 86400 s) * 0.25.
    embodied_g = 1.5e6 * 20 / (4 * 365 * 86400) * 0.25
    assert embodied_g == pytest.approx(0.0594559, rel=1e-5)
    assert found["embodied_per_1k_output_tokens_g"].value == pytest.approx(embodied_g / 2)
    assert found["sci_per_1k_output_tokens_g"].value == pytest.approx((0.6 + embodied_g) / 2)
    assert found["sci_per_request_g"].value == pytest.approx((0.6 + embodied_g) / 20)
    # The gain errs in the operational part alone.
    assert terms(found["sci_per_request_g"])["sensor gain"] == pytest.approx(0.03 * 0.6 / 20)


def test_the_embodied_part_fluctuates_with_the_work_too():
    """Even power, uneven work: energy and time are spread over the tokens alike, so both parts fluctuate alike."""
    cell = made_cell(own=0.1)
    wave = {**cell.bins, "output_tokens": 100 * (1 + 0.5 * np.sin(np.arange(DURATION_S) * 2.1))}
    found = sci(made_cell(own=0.1, bins=wave), EMBODIED)
    total, part = found["sci_per_1k_output_tokens_g"], found["embodied_per_1k_output_tokens_g"]
    share = terms(part)["fluctuation of the load"] / part.value
    assert share > 0.01
    assert terms(total)["fluctuation of the load"] / total.value == pytest.approx(share, rel=1e-3)


def test_software_carbon_intensity_without_embodied_data():
    found = sci(made_cell(), None)
    assert [codes(figure) for figure in found.values()] == [["no_embodied"]] * 4


def test_water_apart():
    found = water_per_token(made_cell())
    # 6000 J are 1/600 kWh; over 2 thousand tokens.
    assert found["water_site_per_1k_output_tokens_l"].value == pytest.approx(0.5 / 600 / 2)
    assert found["water_source_per_1k_output_tokens_l"].value == pytest.approx(2.0 / 600 / 2)
    assert codes(
        water_per_token(without(made_cell(), "water_site_l", "no_factor"))["water_site_per_1k_output_tokens_l"]
    ) == ["no_factor"]


def test_ess_is_labelled_and_rewards_size():
    small, large = (
        ml_ecolyzer_ess(made_cell(model=model_of(n)))["ess_million_parameters_per_g"]
        for n in (8_000_000_000, 70_000_000_000)
    )
    assert small.value == pytest.approx(8000 / 0.6)
    assert large.value > small.value
    assert codes(small) == ["comparison_only"]
    unknown = ml_ecolyzer_ess(made_cell(model=model_of(None, {"parameters": "the weights are dummies"})))
    assert codes(unknown["ess_million_parameters_per_g"]) == ["no_parameters"]
    assert "dummies" in unknown["ess_million_parameters_per_g"].reasons[0].detail


def test_modelled_power_has_no_interval_anywhere():
    cell = made_cell()
    plain = {
        name: Figure(figure.value, figure.unit, figure.basis, "cpu (modelled)", "modelled")
        if figure.grade == "counter"
        else figure
        for name, figure in cell.figures.items()
    }
    modelled = made_cell(figures=plain)
    every = {
        **energy_per_token(modelled),
        **energy_delay(modelled),
        **sci(modelled, EMBODIED),
        **water_per_token(modelled),
        **request_energy(modelled, UNCERTAINTY),
    }
    given = {name: figure for name, figure in every.items() if figure.valid and not name.startswith("embodied")}
    assert given
    assert {figure.interval_95 for figure in given.values()} == {None}
    assert {figure.grade for figure in given.values()} == {"modelled"}


def test_a_request_that_ends_outside_is_not_finished():
    cell = made_cell()
    late = cell.requests.assign(last_token_ns=START_NS + DURATION_S * SECOND)
    assert made_cell(requests=late).finished().empty
    assert math.isclose(len(cell.finished()), 20)
    assert isinstance(cell.finished(), pd.DataFrame)
