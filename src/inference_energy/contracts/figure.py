"""A figure: a number that says what it is, how far it can be trusted, and, when it cannot, why it is not there."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Basis = Literal["total", "active", "marginal", "none"]
"""What was subtracted: nothing, the cold idle, or the loaded idle; `none` where the question does not arise."""

Grade = Literal["counter", "sampled", "metered", "modelled", "simulated", "counted", "configured"]
"""How the energy is known; `counted` for token counts and times, `configured` for what the user's config states."""

GRADES_WORST_LAST: tuple[Grade, ...] = (
    "counted",
    "configured",
    "metered",
    "counter",
    "sampled",
    "modelled",
    "simulated",
)


@dataclass(frozen=True)
class Reason:
    """Why a figure is missing or must be read with care: a code for programs, a sentence for people."""

    code: str
    detail: str


@dataclass(frozen=True)
class Figure:
    """One figure of a summary.

    Attributes:
        value: the number, or None when it is not valid: then the reasons say why.
        unit: `J`, `W`, `J/token`, `s`, ...
        basis: what was subtracted from the energy.
        boundary: the domains inside, such as `gpu` or `cpu (modelled)`; `client` for latencies.
        grade: how it is known; a figure from several parts has the grade of its worst part.
        valid: False when it cannot be trusted.
        reasons: why it is invalid, or notes on a valid figure.
        interval_95: lower and upper bound, where an interval is implemented.
        budget: the terms of its uncertainty, where a budget is implemented.
    """

    value: float | None
    unit: str
    basis: Basis
    boundary: str
    grade: Grade
    valid: bool = True
    reasons: tuple[Reason, ...] = field(default=())
    interval_95: tuple[float, float] | None = None
    budget: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """A figure without a value says why; an invalid figure has no value."""
        if self.valid != (self.value is not None):
            raise ValueError("a figure has a value exactly when it is valid")
        if not self.valid and not self.reasons:
            raise ValueError("an invalid figure gives a reason")

    def as_dict(self) -> dict[str, Any]:
        """The figure as JSON holds it."""
        return {**asdict(self), "reasons": [asdict(reason) for reason in self.reasons]}


def missing_figure(unit: str, basis: Basis, boundary: str, grade: Grade, *reasons: Reason) -> Figure:
    """A figure that cannot be given, with the reasons."""
    return Figure(None, unit, basis, boundary, grade, valid=False, reasons=reasons)


def weakest(grades: list[Grade]) -> Grade:
    """The grade of a figure made of parts with these grades: that of its worst part."""
    return max(grades, key=GRADES_WORST_LAST.index)
