"""Arithmetic on figures: reasons and grades travel with the numbers."""

from typing import Any

from inference_energy.analysis.uncertainty.budget import load_budget, with_budget
from inference_energy.analysis.validity import invalidating, judged, reason, unique
from inference_energy.contracts.figure import Figure, Reason, worst


def load_figure(content: dict[str, Any]) -> Figure:
    """A figure back from JSON."""
    interval = content.get("interval_95")
    return Figure(
        value=content["value"],
        unit=content["unit"],
        basis=content["basis"],
        boundary=content["boundary"],
        grade=content["grade"],
        valid=content["valid"],
        reasons=tuple(Reason(r["code"], r["detail"]) for r in content["reasons"]),
        interval_95=(interval[0], interval[1]) if interval else None,
        budget=content.get("budget"),
    )


def times(figure: Figure, factor: float, unit: str) -> Figure:
    """The figure in another unit, its interval and budget with it."""
    if figure.value is None:
        return judged(
            None,
            unit,
            boundary=figure.boundary,
            grade=figure.grade,
            basis=figure.basis,
            reasons=figure.reasons,
        )
    scaled = judged(
        figure.value * factor,
        unit,
        boundary=figure.boundary,
        grade=figure.grade,
        basis=figure.basis,
        notes=figure.reasons,
    )
    return scaled if figure.budget is None else with_budget(scaled, load_budget(figure.budget).scaled(factor).terms)


def ratio(numerator: Figure, divisor: Figure, unit: str, none_code: str, none_detail: str) -> Figure:
    """`numerator / divisor`; missing where either is, or where the divisor is zero.

    Args:
        numerator: such as an energy; gives basis and boundary.
        divisor: such as a token count.
        unit: of the result, such as `J/token`.
        none_code: the reason code for a divisor of zero.
        none_detail: its sentence.
    """
    grade = worst([numerator.grade, divisor.grade])
    problems = [*(invalid(numerator)), *(invalid(divisor))]
    if not problems and not divisor.value:
        problems.append(reason(none_code, none_detail))
    value = None
    if not problems and numerator.value is not None and divisor.value is not None:
        value = numerator.value / divisor.value
    return judged(
        value,
        unit,
        boundary=numerator.boundary,
        grade=grade,
        basis=numerator.basis,
        reasons=problems,
        notes=unique((*numerator.reasons, *divisor.reasons)),
    )


def invalid(figure: Figure) -> tuple[Reason, ...]:
    """Why the figure is missing; empty for a valid one, whose reasons are notes."""
    return () if figure.valid else invalidating(figure.reasons)
