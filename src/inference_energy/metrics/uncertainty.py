"""How far a metric may be off, from the budgets of what it is made of.

What stands in several parts must not be taken for several errors. Energy, tokens and latencies of one window fluctuate
together, so their fluctuation is resampled together: the figure's linearised series over the window's seconds, in
blocks (`analysis.uncertainty.bootstrap`). The gain of a card is one number: where powers of that card are compared, it
is applied to all of them at once, and what cancels, cancels. Source: JCGM 100:2008 (GUM), 5.1 and 5.2.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from msgspec import structs

from inference_energy.analysis.figures import blocking_reasons, make_figure, ratio, reason
from inference_energy.analysis.integration import Values
from inference_energy.analysis.power_series import Correction
from inference_energy.analysis.uncertainty.budget import Budget, Term, merged, ratio_error, with_budget
from inference_energy.analysis.uncertainty.terms import scale_terms
from inference_energy.config.analysis import Uncertainty
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.grades import weakest
from inference_energy.metrics.inputs import WindowInputs

SCALE = ("sensor gain", "sensor offset", "calibration", "meter")
"""Terms that a sensor has in all windows alike."""
LOAD = "fluctuation of the load"
NEGLIGIBLE = 1e-9
"""Terms below this share of the value are rounding errors of what cancels."""


def terms_of(figure: Figure, *without: str) -> list[Term]:
    """The terms of a figure's budget but some; empty where it has none."""
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
    """A figure without interval that has basis, boundary and grade of another.

    Args:
        figure: the other.
        value: see `judged`.
        unit: of the new one.
        reasons: see `judged`.
        notes: see `judged`.
        counted: whether counts went into it too.
        boundary: in place of the other's.
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
    """`factor / figure`, such as tokens per joule from joules per token.

    The interval is that of the figure turned round; the terms are scaled by the derivative, factor / value². A figure
    whose interval reaches zero has no inverse that is bounded, so that is not given.
    """
    problems = [*blocking_reasons(figure)]
    low, high = figure.interval_95 or (figure.value, figure.value)
    if not problems and (low is None or low <= 0):
        problems.append(reason("interval_reaches_zero", f"Its inverse, in {figure.unit}, may be zero."))
    if problems or figure.value is None or low is None or high is None:
        return like(figure, None, unit, reasons=problems)
    found = like(figure, factor / figure.value, unit, notes=figure.reasons)
    if figure.interval_95 is None:
        return found
    budget = Budget.from_record(figure.budget).scaled(factor / figure.value**2).record() if figure.budget else None
    return structs.replace(found, interval_95=(factor / high, factor / low), budget=budget)


def per(
    window: WindowInputs, basis: str, count: Figure, bins: Values | None, unit: str, none_code: str, none_detail: str
) -> Figure:
    """The window's energy on a basis over a count of it, as `intensities` gives them, with their budget.

    Args:
        window: the window.
        basis: of the energy.
        count: what it is divided by.
        bins: the count in each bin; None where that is not known.
        unit: of the result.
        none_code: the reason code for a count of zero.
        none_detail: its sentence.
    """
    energy = window.figures[f"energy_{basis}_j"]
    found = ratio(energy, count, unit, none_code, none_detail)
    if found.value is None or not count.value or energy.budget is None:
        return found
    own = [term.scaled(1 / count.value) for term in terms_of(energy)]
    return with_budget(found, [*own, *fluctuation(window.above_idle_j(basis), bins)])


def fluctuation(numerator: Values | None, denominator: Values | None) -> list[Term]:
    """How far sum(numerator) / sum(denominator) of this window may be from the load's own."""
    if numerator is None or denominator is None or len(numerator) != len(denominator):
        return []
    found = ratio_error(numerator, denominator)
    if found is None:
        return []
    return [Term(LOAD, "A", found.value, found.dof, f"block bootstrap over the window, blocks of {found.block} s")]


def fluctuation_of_sum(series: Values | None) -> list[Term]:
    """How far the sum of a linearised series, one part a bin, may be from the load's own."""
    return [] if series is None else fluctuation(series, np.full(len(series), 1 / max(len(series), 1)))


def scale_of(
    parts: Mapping[str, float], amount: float, corrections: Mapping[str, Correction], config: Uncertainty
) -> list[Term]:
    """What gains and offsets leave open of a weighted sum of energies or powers of the same devices.

    Args:
        parts: for each device the sum over the windows of weight times its energy, or its power.
        amount: the sum of weight times duration; of weights, for powers.
        corrections: of the calibrated devices.
        config: what is stated of the others.
    """
    sign = -1.0 if amount < 0 else 1.0
    return list(scale_terms({key: sign * value for key, value in parts.items()}, abs(amount), corrections, config))


def bounded(figure: Figure, terms: Iterable[Term]) -> Figure:
    """The figure with the terms that count."""
    found = merged(tuple(terms))
    return with_budget(figure, [term for term in found if term.u > NEGLIGIBLE * abs(figure.value or 0.0)])


def half_width(figure: Figure) -> float:
    """Half the width of a figure's interval, the larger half where it is not even; 0 without one."""
    if figure.value is None or figure.interval_95 is None:
        return 0.0
    return max(figure.interval_95[1] - figure.value, figure.value - figure.interval_95[0])
