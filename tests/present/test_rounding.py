"""Digits of a value and its interval."""

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_energy.contracts.figure import Figure, Reason, missing_figure
from inference_energy.present.figures_text import format_figure, rounded


def number(text):
    return Decimal(text.replace(",", "").replace("−", "-"))


@pytest.mark.parametrize(
    ("value", "expanded", "shown"),
    [
        (0.45213, 0.02634, "0.452 ± 0.026"),
        (0.45213, 0.00996, "0.452 ± 0.010"),
        (45_869.27, 2_035.0, "45,900 ± 2,000"),
        (641.52, 28.59, "642 ± 29"),
        (10.0, 0.5, "10.00 ± 0.50"),
        (99.96, 9.96, "100 ± 10"),
        (-3.14159, 0.05, "−3.142 ± 0.050"),
        (0.3, 1.2, "0.3 ± 1.2"),
        (-0.01, 1.2, "0.0 ± 1.2"),
        (0.0, 25.0, "0 ± 25"),
        (0.000123456, 0.0000012, "0.0001235 ± 0.0000012"),
    ],
)
def test_two_digits_of_the_uncertainty_and_the_value_to_the_same_place(value, expanded, shown):
    found = rounded(value, value - expanded, value + expanded)
    assert f"{found.number} {found.spread}" == shown


def test_bounds_that_do_not_lie_around_the_value_are_both_given():
    found = rounded(455.2, 440.3, 500.1)
    assert (found.number, found.spread) == ("455", "[440 to 500]")


@pytest.mark.parametrize(
    ("value", "low", "high"), [(1.0, 1.0, 1.0), (1.0, 2.0, 0.0), (1.0, math.nan, 2.0), (1.0, -math.inf, math.inf)]
)
def test_bounds_without_a_width_are_no_interval(value, low, high):
    assert rounded(value, low, high) is None


sizes = st.floats(min_value=1e-12, max_value=1e15)


@given(value=st.floats(min_value=-1e15, max_value=1e15), below=sizes, above=sizes)
def test_what_is_printed_holds_the_printed_value_and_is_near_the_figure(value, below, above):
    low, high = value - below, value + above
    found = rounded(value, low, high)
    if found is None:
        assert not low < high
        return
    assert "e" not in (found.number + found.spread).lower()
    shown, first, last = number(found.number), number(found.low), number(found.high)
    assert first <= shown <= last
    if found.spread.startswith("±"):
        expanded = number(found.spread.removeprefix("± "))
        assert (last - shown, shown - first) == (expanded, expanded)
        assert len(expanded.normalize().as_tuple().digits) <= 2
    # Two significant digits of U are off by at most a twentieth of it, and so is the value's rounding.
    room = 0.051 * (high - low) / 2 + 1e-9 * abs(value)
    assert float(shown) == pytest.approx(value, abs=room)
    assert float(last - first) == pytest.approx(high - low, abs=2.5 * room)


@given(value=st.floats(min_value=1e-6, max_value=1e9), share=st.floats(min_value=1e-4, max_value=2))
def test_a_figures_place_has_the_unit_and_the_interval_of_its_number(value, share):
    figure = Figure(value, "J", "total", "gpu", "counter", interval_95=(value * (1 - share), value * (1 + share)))
    shown = format_figure(figure)
    assert shown.text == f"{shown.number} {shown.spread} {shown.unit}"
    low, high = (number(text) for text in shown.interval.split(" to "))
    assert low < number(shown.number) < high
    assert shown.tooltip == f"95\u00a0% interval: {shown.interval} {shown.unit}"


def test_the_interval_is_in_the_unit_of_the_number():
    figure = Figure(0.060, "J/token", "total", "gpu", "counter", interval_95=(0.055, 0.065))
    shown = format_figure(figure)
    assert (shown.text, shown.interval) == ("60.0 ± 5.0 mJ / token", "55.0 to 65.0")


@pytest.mark.parametrize(
    ("unit", "grade", "why"),
    [
        ("J", "modelled", "the error of a model is not known"),
        ("gCO2e", "modelled", "the error of a model is not known"),
        ("token", "counted", "counts and times are exact"),
        ("s", "counted", "counts and times are exact"),
        ("g", "configured", "stated in the configuration"),
        ("gCO2e/request", "counter", "error of the configured factors is not known"),
        ("J", "counter", "was not computed"),
    ],
)
def test_a_figure_without_an_interval_says_why(unit, grade, why):
    shown = format_figure(Figure(3.0, unit, "total", "gpu", grade))
    assert why in shown.no_interval_reason
    assert (shown.spread, shown.interval, shown.tooltip) == ("", "", "")


def test_an_interval_says_nothing_on_why_there_is_none():
    assert not format_figure(Figure(3.0, "J", "total", "gpu", "counter", interval_95=(2.0, 4.0))).no_interval_reason


def test_an_invalid_figure_shows_neither_number_nor_interval():
    figure = missing_figure("J", "total", "gpu", "counter", Reason("gap", "a hole"))
    shown = format_figure(figure)
    assert (shown.text, shown.interval, shown.tooltip, shown.no_interval_reason) == ("not given", "", "", "")
