"""Sweeps by hand: powers and rates of levels, what is between them, and a day of traffic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_cells import GPU, UNCERTAINTY, codes, made_cell, without

from inference_energy.config.analysis import Uncertainty
from inference_energy.contracts.traffic import Traffic
from inference_energy.metrics.daily_use import daily_use, hourly_power
from inference_energy.metrics.energy_proportionality import (
    energy_proportionality,
    idle_to_peak,
    overall,
    power_at_levels,
    proportionality,
)
from inference_energy.metrics.inputs import Devices
from inference_energy.metrics.sweep import sweeps

LEVELS = ((2, 200.0), (4, 300.0), (8, 400.0))


def cells(levels=LEVELS, **more):
    return [made_cell(name=f"q{n}", requests_per_s=n, power_w=w, **more) for n, w in levels]


def sweep(levels=LEVELS, **more):
    (found,) = sweeps(cells(levels, **more))
    return found


def test_the_figures_of_a_sweep():
    found = energy_proportionality(sweep(), UNCERTAINTY)
    # Idle 100 W; at 25, 50 and 100 % of full load 200, 300 and 400 W.
    area = 0.25 * 150 + 0.25 * 250 + 0.5 * 350
    assert found["energy_proportionality"].value == pytest.approx(1 - (area - 200) / 200)
    assert found["idle_to_peak_share"].value == pytest.approx(0.25)
    powers = [100, 140, 180, 220, 260, 300, 320, 340, 360, 380, 400]
    rates = [80.0 * level for level in range(11)]  # tokens/s, 100 a request
    assert found["overall_tokens_per_j"].value == pytest.approx(sum(rates) / sum(powers))
    assert [row.power_w for row in power_at_levels(sweep())] == pytest.approx(powers)
    assert codes(found["energy_proportionality"]) == ["interpolated_levels"]


def test_goodput_is_the_load_where_there_are_limits():
    levels = [
        made_cell(name=f"q{n}", requests_per_s=n, power_w=w, good_per_s=good)
        for n, w, good in ((2, 200.0, 2), (4, 300.0, 4), (8, 400.0, 6), (10, 410.0, 1))
    ]
    (found,) = sweeps(levels)
    assert found.rate.figure == "goodput_requests_per_s"
    assert [cell.name for cell in found.levels] == ["q2", "q4", "q8"]
    ((cell, reasons),) = found.left_out
    assert (cell, [each.code for each in reasons]) == ("s.q10", ["beyond_full_load"])
    assert found.rates().tolist() == [2.0, 4.0, 6.0]


def test_a_gain_that_all_powers_share_cancels_but_not_in_a_ratio_to_work():
    found = energy_proportionality(sweep(), UNCERTAINTY)
    assert found["energy_proportionality"].interval_95 is None
    assert found["idle_to_peak_share"].interval_95 is None
    overall_j = found["overall_tokens_per_j"]
    assert {term.name: term.u for term in overall_j.budget.terms} == {
        "sensor gain": pytest.approx(0.03 * overall_j.value)
    }


def test_the_gains_of_two_devices_do_not_cancel():
    """A card that follows the load beside a memory that does not: their gains err apart."""
    apart = []
    for cell in cells():
        power_w = cell.figures["power_mean_w"].value
        energies = {GPU: (power_w - 60.0) * cell.duration_s, "dram d (rapl)": 60.0 * cell.duration_s}
        idle = {"cold": {GPU: 20.0, "dram d (rapl)": 30.0}, "loaded": {GPU: 40.0, "dram d (rapl)": 60.0}}
        apart.append(made_cell(**{**vars(cell), "devices": Devices(energies, idle, {})}))
    (found,) = sweeps(apart)
    (term,) = energy_proportionality(found, UNCERTAINTY)["idle_to_peak_share"].budget.terms
    # R = P0 / P3: of the card d R = g (40 - R 340) / 400, of the memory g (60 - R 60) / 400, with R = 1 / 4.
    card, memory = (40 - 0.25 * 340) / 400, (60 - 0.25 * 60) / 400
    assert (term.name, term.u) == ("sensor gain", pytest.approx(0.03 * np.hypot(card, memory), rel=1e-6))


def test_an_offset_does_not_cancel():
    found = energy_proportionality(sweep(), Uncertainty(gain=0.0, offset_w=2.0))["idle_to_peak_share"]
    (term,) = found.budget.terms
    # d(P0 / P3) = 2 W (1 - 1/4) / 400 W.
    assert (term.name, term.u) == ("sensor offset", pytest.approx(2 * 0.75 / 400, rel=1e-6))


@pytest.mark.parametrize(
    ("levels", "code"),
    [
        (LEVELS[:2], "no_load_sweep"),
        ((LEVELS[0], LEVELS[1], (9, 400.0)), "load_gap"),
        (((8, 1.0),) * 3, "no_load_sweep"),
    ],
)
def test_a_curve_that_would_be_a_guess_is_not_given(levels, code):
    found = sweep(levels)
    assert codes(energy_proportionality(found, UNCERTAINTY)["energy_proportionality"]) == [code]
    assert power_at_levels(found) is None


def test_unusable_windows_are_left_out_with_their_reasons():
    four = [*cells(), made_cell(name="bad", requests_per_s=6)]
    four[3] = without(four[3], "power_mean_w", "not_steady")
    (found,) = sweeps(four)
    assert [(name, [each.code for each in reasons]) for name, reasons in found.left_out] == [("s.bad", ["not_steady"])]
    assert energy_proportionality(found, UNCERTAINTY)["energy_proportionality"].valid


def test_without_the_idle_server_there_is_no_beginning():
    cell = made_cell()
    absent = without(made_cell(figures={**cell.figures, "i": cell.idle["loaded"]}), "i", "loaded_idle_missing").figures[
        "i"
    ]
    found = sweep(idle={"cold": cell.idle["cold"], "loaded": absent})
    assert codes(energy_proportionality(found, UNCERTAINTY)["idle_to_peak_share"])[0] == "loaded_idle_missing"


def test_sweeps_cross_sessions_but_not_workloads():
    found = sweeps([*cells(), *cells(LEVELS[:1], session="t", workload="code"), *cells(((6, 350.0),), session="t")])
    assert [(each.workload, len(each.levels)) for each in found] == [("chat", 4), ("code", 1)]
    assert len(found[0].idles) == 2


def test_a_day():
    profile = Traffic("requests", (0.0,) * 12 + (7200.0,) * 6 + (28800.0,) * 6)
    found = daily_use(sweep(), profile, 1, UNCERTAINTY)
    # 12 h idle, 6 h at 2 requests/s, 6 h at 8.
    energy_kwh = (12 * 100 + 6 * 200 + 6 * 400) / 1000
    assert found["daily_energy_kwh"].value == pytest.approx(energy_kwh)
    assert found["daily_carbon_kg"].value == pytest.approx(energy_kwh * 0.36)
    assert found["daily_water_site_l"].value == pytest.approx(energy_kwh * 0.5)
    assert found["daily_water_source_l"].value == pytest.approx(energy_kwh * 2.0)
    assert found["daily_energy_kwh"].interval_95 == pytest.approx(
        tuple(energy_kwh * (1 + sign * 1.959964 * 0.03) for sign in (-1, 1)), rel=1e-5
    )
    shared = daily_use(sweep(), profile, 2, UNCERTAINTY)
    # Each has half the rate, and both are on.
    assert shared["daily_energy_kwh"].value == pytest.approx(2 * (12 * 100 + 6 * 150 + 6 * 300) / 1000)
    assert [row.power_w for row in hourly_power(sweep(), profile, 1)][11:13] == [100.0, 200.0]


def test_a_day_that_asks_more_than_was_measured():
    found = daily_use(sweep(), Traffic("output_tokens", (0.0,) * 23 + (900 * 3600.0,)), 1, UNCERTAINTY)
    (why,) = found["daily_energy_kwh"].reasons
    assert why.code == "traffic_beyond_sweep"
    assert "Hour 23" in why.detail
    assert "replicas: 2" in why.detail
    assert codes(found["daily_carbon_kg"]) == ["traffic_beyond_sweep"]
    assert codes(daily_use(sweep(), None, 1, UNCERTAINTY)["daily_energy_kwh"]) == ["no_traffic"]


watts = st.floats(1.0, 1000.0)
rising = st.lists(st.floats(0.01, 100.0), min_size=3, max_size=8, unique=True).map(lambda x: np.array(sorted(x)))


@given(rising, watts)
def test_a_proportional_server_has_1_and_a_constant_one_0(rates, peak_w):
    assert proportionality(0.0, peak_w * rates / rates.max(), rates) == pytest.approx(1.0, abs=1e-9)
    constant = np.full(len(rates), peak_w)
    assert proportionality(peak_w, constant, rates) == pytest.approx(0.0, abs=1e-9)
    assert idle_to_peak(peak_w, constant, rates) == pytest.approx(1.0)


@given(rising, watts, st.floats(0.1, 10.0), st.randoms())
def test_scaling_splitting_and_order(rates, idle_w, scale, random):
    powers = idle_w + rates**0.7
    ep, efficiency = proportionality(idle_w, powers, rates), overall(idle_w, powers, rates)
    assert proportionality(scale * idle_w, scale * powers, rates) == pytest.approx(ep, rel=1e-9)
    assert overall(scale * idle_w, scale * powers, rates) == pytest.approx(efficiency / scale, rel=1e-9)
    # A window split into two halves of the same power and rate; levels in any order.
    order = list(range(len(rates)))
    random.shuffle(order)
    twice = np.concatenate((rates[order], rates[:1])), np.concatenate((powers[order], powers[:1]))
    assert proportionality(idle_w, twice[1], twice[0]) == pytest.approx(ep, rel=1e-9)
    assert overall(idle_w, twice[1], twice[0]) == pytest.approx(efficiency, rel=1e-9)
