"""Fronts and dominance: beyond uncertainty, between what may be compared, and a strict partial order."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_cells import counted, made_cell, measured

from inference_energy.analysis.uncertainty.budget import Term, with_budget
from inference_energy.contracts.figure import Figure
from inference_energy.errors import InputError
from inference_energy.metrics import pareto
from inference_energy.metrics.pareto import Candidate, Point, dominates, larger_is_better, surely_better

NAMES = ("energy_total_per_output_token_j", "tpot_p50_s")


def front(*cells, names=NAMES):
    return pareto.front([Candidate(c.machine, c.full_name, c.kind, c.workload, c.figures) for c in cells], names)


def beaten(found):
    return {
        point.cell: [other.cell for other in point.dominated_by] for group in found.groups for point in group.points
    }


def test_what_is_worse_in_both_is_dominated():
    frugal = made_cell(name="frugal", power_w=200.0, latency_s=4.0)
    fast = made_cell(name="fast", power_w=400.0, latency_s=2.0)
    bad = made_cell(name="bad", power_w=500.0, latency_s=5.0)
    assert beaten(front(frugal, fast, bad)) == {"s.frugal": [], "s.fast": [], "s.bad": ["s.frugal", "s.fast"]}


def test_a_difference_within_uncertainty_dominates_nobody():
    """Two machines 4 % apart, each with a gain of 3 %; on one machine the gain is the same and tells them apart."""
    near, far = made_cell(name="near", power_w=300.0), made_cell(name="far", power_w=312.0)
    assert beaten(front(near, far)) == {"s.near": [], "s.far": ["s.near"]}
    elsewhere = made_cell(name="far", power_w=312.0, machine="other")
    assert beaten(front(near, elsewhere)) == {"s.near": [], "s.far": []}


def test_workloads_boundaries_and_grades_have_fronts_of_their_own():
    cells = [made_cell(name="a"), made_cell(name="b", workload="code"), made_cell(name="c")]
    modelled = Figure(9.0, "J/token", "total", "gpu", "modelled")
    cells[2] = made_cell(name="c", figures={**cells[2].figures, NAMES[0]: modelled})
    assert len(front(*cells).groups) == 3


def test_windows_without_a_figure_are_left_out_with_the_reason():
    cell = made_cell(name="a")
    lacking = made_cell(name="b", figures={k: f for k, f in cell.figures.items() if k != "tpot_p50_s"})
    found = front(cell, lacking, made_cell(name="fit", kind="decode"))
    assert [(row.cell, row.reasons) for row in found.left_out] == [("s.b", ["There is no tpot_p50_s."])]


def test_names_that_cannot_be_ranked_or_are_not_there():
    with pytest.raises(InputError, match="duration_s: neither more nor less"):
        larger_is_better("duration_s")
    with pytest.raises(InputError, match="no window has a figure ttft_p90_s"):
        front(made_cell(), names=(NAMES[0], "ttft_p90_s"))
    assert larger_is_better("output_tokens_per_s")
    assert not larger_is_better("sci_per_request_g")


def test_equal_without_doubt_is_no_obstacle():
    a = Point("a", "m", (measured(1.0, "J/token"), counted(5.0, "s")))
    b = Point("b", "m", (measured(2.0, "J/token"), counted(5.0, "s")))
    assert dominates(a, b, (False, False))
    assert not dominates(a, a, (False, False))


def figure(value, gain, own):
    terms = [Term("sensor gain", "B", gain * value, math.inf, ""), Term("fluctuation of the load", "A", own, 7.0, "")]
    return with_budget(Figure(value, "J", "total", "gpu", "counter"), terms)


figures = st.builds(figure, st.floats(0.5, 3.0), st.floats(0.0, 0.2), st.sampled_from([0.0, 0.01, 0.1, 0.3]))
points = st.builds(lambda x, y, machine: Point("c", machine, (x, y)), figures, figures, st.sampled_from(["m", "other"]))


@given(st.lists(points, min_size=3, max_size=6), st.tuples(st.booleans(), st.booleans()))
def test_dominance_is_a_strict_partial_order(found, larger):
    for a in found:
        assert not dominates(a, a, larger)
        for b in found:
            assert not (dominates(a, b, larger) and dominates(b, a, larger))
            for c in found:
                if dominates(a, b, larger) and dominates(b, c, larger):
                    assert dominates(a, c, larger)


@given(figures, figures, st.booleans())
def test_surely_better_means_better(a, b, one_machine):
    if surely_better(a, b, larger=False, one_machine=one_machine):
        assert a.value < b.value
