"""Propagation of uncertainty: the budget of a metric from the budgets of its inputs.

An error that enters several inputs counts once. Energy, tokens and latencies of one window fluctuate together, so they
are resampled together: the figure's linearized series over the window's seconds, in blocks
(`analysis.uncertainty.budget`). The gain of a card is one number: it is applied to all powers of the card at once, so
that it cancels where it should. Source: JCGM 100:2008 (GUM), 5.1 and 5.2.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from msgspec import structs

from inference_energy.analysis.figures import blocking_reasons, make_figure, ratio
from inference_energy.analysis.integration import Values
from inference_energy.analysis.power_series import Correction
from inference_energy.analysis.uncertainty.budget import Budget, Term, merged, ratio_error, with_budget
from inference_energy.analysis.uncertainty.terms import scale_terms
from inference_energy.config.analysis import Uncertainty
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.grades import weakest
from inference_energy.contracts.reason_codes import reason
from inference_energy.metrics.inputs import WindowInputs

SCALE = ("sensor gain", "sensor offset", "calibration", "meter")
"""Terms that are the same in all windows of a sensor."""
LOAD = "fluctuation of the load"
NEGLIGIBLE = 1e-9
"""Terms below this share of the value are rounding errors of a cancellation."""


def terms_of(figure: Figure, *without: str) -> list[Term]:
    """Return the terms of a figure's budget except some; empty without a budget."""
    return [term for term in Budget.from_record(figure.budget).terms if term.name not in without]


def like(
    figure: Figure,
    value: float | None,
    unit: str,
    *,
    reasons: Iterable[Reason] = (),
    notes: Iterable[Reason] = (),
    counted: bool = False,
    boundary: str | None = None,
) -> Figure:
    """Return a figure without interval, with basis, boundary and grade of another.

    Args:
        figure: the other figure.
        value: see `make_figure`.
        unit: unit of the new figure.
        reasons: see `make_figure`.
        notes: see `make_figure`.
        counted: whether counts went into it too.
        boundary: boundary of the new figure, if it differs.
    """
    return make_figure(
        value,
        unit,
        boundary=boundary or figure.boundary,
        grade=weakest([figure.grade, "counted"]) if counted else figure.grade,
        basis=figure.basis,
        reasons=reasons,
        notes=notes,
    )


def inverse(figure: Figure, factor: float, unit: str) -> Figure:
    """Return `factor / figure`, such as tokens per joule from joules per token.

    The bounds are those of the inverted interval; the terms are scaled by the derivative, factor / value². If the
    interval reaches zero, the inverse is unbounded and has no value.
    """
    problems = [*blocking_reasons(figure)]
    low, high = figure.interval_95 or (figure.value, figure.value)
    if not problems and (low is None or low <= 0):
        problems.append(reason("interval_reaches_zero", f"Its inverse, in {figure.unit}, may be zero."))
    if problems or figure.value is None or low is None or high is None:
        return like(figure, None, unit, reasons=problems)
    result = like(figure, factor / figure.value, unit, notes=figure.reasons)
    if figure.interval_95 is None:
        return result
    budget = Budget.from_record(figure.budget).scaled(factor / figure.value**2).record() if figure.budget else None
    return structs.replace(result, interval_95=(factor / high, factor / low), budget=budget)


def per(
    window: WindowInputs, basis: str, count: Figure, bins: Values | None, unit: str, none_code: str, none_detail: str
) -> Figure:
    """Return the window's energy on a basis over a count, with its budget.

    Args:
        window: the window.
        basis: basis of the energy.
        count: the divisor.
        bins: the count in each bin; None if unknown.
        unit: unit of the result.
        none_code: the reason code for a count of zero.
        none_detail: its sentence.
    """
    energy = window.figures[f"energy_{basis}_j"]
    quotient = ratio(energy, count, unit, none_code, none_detail)
    if quotient.value is None or not count.value or energy.budget is None:
        return quotient
    energy_terms = [term.scaled(1 / count.value) for term in terms_of(energy)]
    return with_budget(quotient, [*energy_terms, *fluctuation(window.above_idle_j(basis), bins)])


def fluctuation(numerator: Values | None, denominator: Values | None) -> list[Term]:
    """Return the term for how far sum(numerator) / sum(denominator) of this window may be from that of the load."""
    if numerator is None or denominator is None or len(numerator) != len(denominator):
        return []
    error = ratio_error(numerator, denominator)
    if error is None:
        return []
    return [Term(LOAD, "A", error.value, error.dof, f"block bootstrap over the window, blocks of {error.block} s")]


def fluctuation_of_sum(series: Values | None) -> list[Term]:
    """Return the term for how far the sum of a linearized series, by bin, may be from that of the load."""
    return [] if series is None else fluctuation(series, np.full(len(series), 1 / max(len(series), 1)))


def scale_of(
    parts: Mapping[str, float], amount: float, corrections: Mapping[str, Correction], config: Uncertainty
) -> list[Term]:
    """Return the terms of gains and offsets for a weighted sum of energies or powers of the same devices.

    Args:
        parts: for each device, the sum over the windows of weight times energy (or power).
        amount: the sum of weight times duration; for powers, of weights.
        corrections: corrections of the calibrated devices.
        config: stated uncertainties of the other devices.
    """
    sign = -1.0 if amount < 0 else 1.0
    return list(scale_terms({key: sign * value for key, value in parts.items()}, abs(amount), corrections, config))


def bounded(figure: Figure, terms: Iterable[Term]) -> Figure:
    """Return the figure with a budget of the terms that matter."""
    combined = merged(tuple(terms))
    return with_budget(figure, [term for term in combined if term.u > NEGLIGIBLE * abs(figure.value or 0.0)])


def half_width(figure: Figure) -> float:
    """Return half the width of a figure's interval, the larger half if asymmetric; 0 without an interval."""
    if figure.value is None or figure.interval_95 is None:
        return 0.0
    return max(figure.interval_95[1] - figure.value, figure.value - figure.interval_95[0])
