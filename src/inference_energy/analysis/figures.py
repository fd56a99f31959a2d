"""Making figures, and arithmetic on them: reasons, grades, intervals and budgets travel with the numbers."""

from collections.abc import Iterable
from typing import Any

import msgspec

from inference_energy.analysis.uncertainty.budget import Budget, with_budget
from inference_energy.contracts.figure import Basis, Figure, Reason, missing_figure
from inference_energy.contracts.grades import Grade, weakest
from inference_energy.contracts.reason_codes import blocking, deduplicated, reason


def make_figure(
    value: float | None,
    unit: str,
    *,
    boundary: str,
    grade: Grade,
    basis: Basis = "none",
    reasons: Iterable[Reason] = (),
    notes: Iterable[Reason] = (),
) -> Figure:
    """Return a figure, or a missing figure where one of the reasons invalidates it.

    Args:
        value: the number; None needs an invalidating reason.
        unit: its unit.
        boundary: the power domains inside.
        grade: how it is known.
        basis: the idle energy that was subtracted.
        reasons: reasons that act as the table of codes says.
        notes: reasons that are notes here, whatever they do to other figures.

    Raises:
        ValueError: there is neither a value nor a reason that invalidates it.
    """
    acting = deduplicated(reasons)
    if blocking(acting):
        # Notes matter only where there is a number to read with care.
        return missing_figure(unit, basis, boundary, grade, *blocking(acting))
    if value is None:
        raise ValueError("a figure without a value needs a reason that invalidates it")
    return Figure(float(value), unit, basis, boundary, grade, reasons=deduplicated((*acting, *notes)))


def figure_from_dict(content: dict[str, Any]) -> Figure:
    """Return the figure that decoded JSON holds."""
    return msgspec.convert(content, Figure)


def scaled(figure: Figure, factor: float, unit: str) -> Figure:
    """Return the figure in another unit, with its interval and budget.

    Args:
        figure: the figure.
        factor: the number that value and uncertainties are multiplied by.
        unit: unit of the result.
    """
    if figure.value is None:
        return make_figure(
            None, unit, boundary=figure.boundary, grade=figure.grade, basis=figure.basis, reasons=figure.reasons
        )
    result = make_figure(
        figure.value * factor,
        unit,
        boundary=figure.boundary,
        grade=figure.grade,
        basis=figure.basis,
        notes=figure.reasons,
    )
    if figure.budget is None:
        return result
    return with_budget(result, Budget.from_record(figure.budget).scaled(factor).terms)


def ratio(numerator: Figure, divisor: Figure, unit: str, none_code: str, none_detail: str) -> Figure:
    """Return `numerator / divisor` without an interval; missing where either is, or where the divisor is zero.

    Args:
        numerator: such as an energy; gives basis and boundary.
        divisor: such as a token count.
        unit: unit of the result, such as `J/token`.
        none_code: reason code for a divisor of zero.
        none_detail: its sentence.
    """
    problems = [*blocking_reasons(numerator), *blocking_reasons(divisor)]
    if not problems and not divisor.value:
        problems.append(reason(none_code, none_detail))
    value = None
    if not problems and numerator.value is not None and divisor.value is not None:
        value = numerator.value / divisor.value
    return make_figure(
        value,
        unit,
        boundary=numerator.boundary,
        grade=weakest([numerator.grade, divisor.grade]),
        basis=numerator.basis,
        reasons=problems,
        notes=deduplicated((*numerator.reasons, *divisor.reasons)),
    )


def blocking_reasons(figure: Figure) -> tuple[Reason, ...]:
    """Return why a figure is missing; empty for a valid one, whose reasons are notes."""
    return () if figure.valid else blocking(figure.reasons)
