"""The uncertainty budget: the GUM's formulas, by hand and by its own example."""

import math

import pytest
from scipy import stats

from inference_energy.analysis.figures import make_figure, scaled
from inference_energy.analysis.uncertainty.budget import Budget, Term, merged, with_budget
from inference_energy.contracts.reason_codes import reason


def term(u, dof=math.inf, name="some", kind="B"):
    return Term(name, kind, u, dof, "stated")


def figure(value, *terms):
    return with_budget(make_figure(value, "J", boundary="gpu", grade="counter", basis="total"), terms)


# JCGM 100:2008, example H.1 (calibration of an end gauge), table H.1: components u_i(l) in nm and degrees of freedom.
END_GAUGE = (
    term(25.0, 18, "standard"),
    term(5.8, 24, "repeated observations", "A"),
    term(3.9, 5, "random effects of the comparator"),
    term(6.7, 8, "systematic effects of the comparator"),
    term(2.9, 50, "difference of expansion coefficients"),
    term(16.6, 2, "difference of temperatures"),
)


def test_the_example_h1_of_the_gum():
    budget = Budget(END_GAUGE)
    assert budget.combined == pytest.approx(32, abs=0.5)  # H.1.4: u_c(l) = 32 nm
    assert int(budget.dof) == 16  # H.1.6: nu_eff = 16
    # H.1.6 uses k = t_99(16) = 2.92 for 99 %; the same row of table G.2 has t_95(16) = 2.12. We do not round nu_eff.
    assert budget.factor == pytest.approx(2.12, abs=0.01)
    assert stats.t.ppf(0.995, 16) * budget.combined == pytest.approx(93, abs=1.5)


def test_terms_combine_in_quadrature_and_welch_satterthwaite_says_how_freely():
    budget = Budget((term(3.0, 9), term(4.0, 4)))
    assert budget.combined == pytest.approx(5.0)
    assert budget.dof == pytest.approx(625 / (81 / 9 + 256 / 4))  # 8.56
    assert budget.factor == pytest.approx(stats.t.ppf(0.975, 625 / 73))
    assert budget.expanded == pytest.approx(budget.factor * 5.0)


def test_without_estimated_terms_the_factor_is_the_normal_one():
    budget = Budget((term(1.0), term(2.0)))
    assert budget.dof == math.inf
    assert budget.factor == pytest.approx(1.959964, abs=1e-6)
    assert Budget((term(1.0, 0.2),)).factor == pytest.approx(stats.t.ppf(0.975, 1))  # never fewer than one


def test_an_interval_is_the_value_and_the_expanded_uncertainty():
    found = figure(100.0, term(3.0), term(4.0))
    assert found.interval_95 == pytest.approx((100 - 1.959964 * 5, 100 + 1.959964 * 5))
    assert found.budget.combined == pytest.approx(5.0)
    assert found.budget.dof is None
    assert [t.u for t in found.budget.terms] == [3.0, 4.0]


def test_terms_of_nothing_are_left_out_and_give_no_interval():
    assert figure(100.0, term(0.0)).interval_95 is None
    assert [t.name for t in figure(100.0, term(0.0, name="none"), term(1.0, name="one")).budget.terms] == ["one"]
    absent = make_figure(None, "J", boundary="gpu", grade="counter", reasons=[reason("gap", "A hole.")])
    assert with_budget(absent, [term(1.0)]) == absent


def test_scaling_scales_every_term_and_keeps_the_freedom():
    budget = Budget((term(3.0, 9), term(4.0, 4)))
    scaled = budget.scaled(-0.5)
    assert [t.u for t in scaled.terms] == [1.5, 2.0]
    assert (scaled.combined, scaled.dof) == pytest.approx((2.5, budget.dof))


def test_a_budget_comes_back_from_json():
    budget = Budget((term(3.0, 9, kind="A"), term(4.0)))
    assert Budget.from_record(budget.record()) == budget


def test_a_figure_in_another_unit_keeps_its_budget():
    found = scaled(figure(3.6e6, term(3.6e4, 9), term(7.2e4)), 1 / 3.6e6, "kWh")
    whole = figure(3.6e6, term(3.6e4, 9), term(7.2e4))
    assert found.unit == "kWh"
    assert [t.u for t in found.budget.terms] == pytest.approx([0.01, 0.02])
    assert found.interval_95 == pytest.approx(tuple(edge / 3.6e6 for edge in whole.interval_95))
    assert found.budget.dof == pytest.approx(whole.budget.dof)
    assert scaled(figure(1.0), 2.0, "J").budget is None


def test_merging_adds_what_has_the_same_name_and_kind():
    found = merged([term(3.0, 9, "edges"), term(5.0, name="gain"), term(4.0, 4, "edges"), term(1.0, 3, "edges", "A")])
    assert [(t.name, t.kind, t.u) for t in found] == [("edges", "B", 5.0), ("gain", "B", 5.0), ("edges", "A", 1.0)]
    assert found[0].dof == pytest.approx(625 / 73)
    assert found[1].dof == math.inf
    assert merged([]) == ()
