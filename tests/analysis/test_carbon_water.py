"""Carbon and water: linear in every factor, and never guessed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_energy.analysis.footprint import carbon_figure, carbon_g, site_water_l, source_water_l, water_figures
from inference_energy.analysis.uncertainty.budget import Term, with_budget
from inference_energy.config.analysis import WaterConfig
from inference_energy.contracts.figure import Figure, missing_figure
from inference_energy.contracts.reason_codes import reason

amounts = st.floats(0, 1e6)
factors = st.floats(0, 100)


@given(amounts, st.floats(0, 2000), st.floats(1, 3), factors)
def test_carbon_is_linear_in_each_factor(energy_kwh, intensity, pue, k):
    base = carbon_g(energy_kwh, intensity, pue)
    for scaled in (
        carbon_g(k * energy_kwh, intensity, pue),
        carbon_g(energy_kwh, k * intensity, pue),
        carbon_g(energy_kwh, intensity, k * pue),
    ):
        assert scaled == pytest.approx(k * base, rel=1e-9, abs=1e-12)


@given(amounts, factors, st.floats(1, 3), factors)
def test_water_is_linear_and_only_the_source_knows_the_pue(energy_kwh, factor, pue, k):
    assert site_water_l(k * energy_kwh, factor) == pytest.approx(k * site_water_l(energy_kwh, factor), rel=1e-9)
    assert source_water_l(energy_kwh, factor, pue) == pytest.approx(pue * site_water_l(energy_kwh, factor), rel=1e-9)


def energy(value=3.6e6, unit="J", grade="sampled"):
    return Figure(value, unit, "total", "gpu", grade)


def test_a_kilowatt_hour_in_germany():
    figure = carbon_figure(energy(), 1, 344.0, 1.0, "gCO2e")
    assert figure.value == pytest.approx(344.0)
    assert (figure.unit, figure.boundary, figure.grade, figure.basis) == ("gCO2e", "gpu", "sampled", "total")


def test_carbon_per_thousand_tokens():
    per_token = energy(0.06, "J/token", "modelled")
    figure = carbon_figure(per_token, 1000, 344.0, 1.2, "gCO2e/1k tokens")
    assert figure.value == pytest.approx(60 / 3.6e6 * 344 * 1.2)
    assert figure.boundary == "gpu, PUE 1.2"
    assert figure.grade == "modelled"


def test_a_missing_energy_leaves_no_carbon_and_says_why():
    absent = missing_figure("J", "active", "gpu", "sampled", reason("cold_idle_missing", "No cold idle."))
    figure = carbon_figure(absent, 1, 344.0, 1.0, "gCO2e")
    assert figure.value is None
    assert [r.code for r in figure.reasons] == ["cold_idle_missing"]


def test_water_of_a_megawatt_hour():
    water = WaterConfig(wue_site_l_per_kwh=0.27, ewif_grid_l_per_kwh=1.947, source="Microsoft FY25; EcoLogits")
    found = water_figures(energy(1000.0, "kWh"), water, pue=1.2)
    assert found["water_site_l"].value == pytest.approx(270.0)
    assert found["water_source_l"].value == pytest.approx(1000 * 1.2 * 1.947)
    assert found["water_total_l"].value == pytest.approx(270.0 + 1000 * 1.2 * 1.947)


@pytest.mark.parametrize("given_key", ["wue_site_l_per_kwh", "ewif_grid_l_per_kwh", None])
def test_missing_factors_are_named_and_leave_no_total(given_key):
    water = WaterConfig(**({given_key: 1.0, "source": "made up"} if given_key else {}))
    found = water_figures(energy(1.0, "kWh"), water, pue=1.0)
    parts = {"wue_site_l_per_kwh": "water_site_l", "ewif_grid_l_per_kwh": "water_source_l"}
    for key, name in parts.items():
        if key == given_key:
            assert found[name].value == pytest.approx(1.0)
        else:
            assert found[name].value is None
            assert found[name].reasons[0].code == "no_factor"
            assert f"impact.water.{key}" in found[name].reasons[0].detail
    assert found["water_total_l"].value is None


FACTORS = WaterConfig(wue_site_l_per_kwh=0.27, ewif_grid_l_per_kwh=1.947, source="Microsoft FY25; EcoLogits")


def measured_kwh(value=1000.0):
    """An energy that may be off by a gain of 3 % and a noise of 1 %."""
    gain = Term("sensor gain", "B", 0.03 * value, math.inf, "stated")
    return with_budget(energy(value, "kWh"), [gain, Term("sampling", "A", 0.01 * value, 12.0, "readings")])


@pytest.mark.parametrize("name", ["water_site_l", "water_source_l", "water_total_l"])
def test_water_has_the_relative_interval_and_terms_of_its_energy_as_carbon_has(name):
    water = water_figures(measured_kwh(), FACTORS, pue=1.2)[name]
    carbon = carbon_figure(measured_kwh(), 3.6e6, 344.0, 1.2, "gCO2e")
    for figure in (water, carbon):
        low, high = figure.interval_95
        assert (high - low) / 2 / figure.value == pytest.approx(0.0632, rel=0.02)
        assert [(t.name, t.kind, t.dof) for t in figure.budget.terms] == [
            ("sensor gain", "B", None),
            ("sampling", "A", 12.0),
        ]
        assert [t.u / figure.value for t in figure.budget.terms] == pytest.approx([0.03, 0.01])
    assert (water.interval_95[1] / water.value) == pytest.approx(carbon.interval_95[1] / carbon.value, rel=1e-12)


def test_both_parts_of_water_err_together():
    """They come from one energy: uncertainties add up, and not their squares."""
    found = water_figures(measured_kwh(), FACTORS, pue=1.2)
    parts = [found[name].budget.combined for name in ("water_site_l", "water_source_l")]
    assert found["water_total_l"].budget.combined == pytest.approx(sum(parts), rel=1e-12)
    assert found["water_total_l"].boundary == "gpu, PUE 1.2"
    assert found["water_site_l"].boundary == "gpu"


def test_water_of_an_energy_without_an_interval_has_none():
    for figure in water_figures(energy(1000.0, "kWh", "modelled"), FACTORS, pue=1.2).values():
        assert (figure.interval_95, figure.budget, figure.grade) == (None, None, "modelled")


def test_water_of_a_missing_energy_says_why_once():
    absent = missing_figure("kWh", "total", "gpu", "sampled", reason("gap", "A hole of 40 s."))
    for figure in water_figures(absent, FACTORS, pue=1.2).values():
        assert (figure.value, figure.interval_95) == (None, None)
        assert [r.code for r in figure.reasons] == ["gap"]
