"""A figure: a number with its unit, boundary, grade, interval, and the reasons where it has no value.

Figures are the leaves of every derived document. A figure without a value always says why.
"""

import json
from typing import Any, Literal

import msgspec

from inference_energy.contracts.grades import Grade

Basis = Literal["total", "active", "marginal", "none"]
"""The idle energy that was subtracted: nothing, the cold idle, or the loaded idle; `none` where there is no energy."""


Number = int | float
"""A number that may be written without a decimal point: `12` is read as an int, so that it is written as `12` again."""


class Reason(msgspec.Struct, frozen=True):
    """Why a figure is missing or must be read with care.

    Attributes:
        code: a row of the table of reason codes, for programs.
        detail: a sentence with the numbers of this case, for people.
    """

    code: str
    detail: str


class UncertaintyTerm(msgspec.Struct, frozen=True):
    """One source of uncertainty of a figure.

    Attributes:
        name: name of the source, the same in every budget.
        kind: `A` (from statistics of the readings) or `B` (from anything else), as in the GUM.
        u: standard uncertainty, in the figure's unit.
        dof: degrees of freedom behind `u`; null: infinite, because it is stated and not estimated.
        basis: where the number comes from, in a few words.
    """

    name: str
    kind: Literal["A", "B"]
    u: float
    dof: Number | None
    basis: str


class UncertaintyBudget(msgspec.Struct, frozen=True):
    """The uncertainty budget of a figure (GUM): its terms, combined and expanded.

    Attributes:
        terms: sources of uncertainty, taken as independent.
        combined: combined standard uncertainty u_c, in the figure's unit.
        dof: effective degrees of freedom (Welch-Satterthwaite); null: infinite.
        factor: coverage factor k of the 95 % interval.
        expanded: expanded uncertainty U = k u_c, half the width of the 95 % interval, in the figure's unit.
    """

    terms: tuple[UncertaintyTerm, ...]
    combined: float
    dof: Number | None
    factor: float
    expanded: float


class Figure(msgspec.Struct, frozen=True):
    """One figure of a result.

    Attributes:
        value: the number; null exactly where `valid` is false, and then `reasons` say why.
        unit: `J`, `W`, `J/token`, `s`, ...
        basis: the idle energy that was subtracted: `total` (none), `active` (cold idle), `marginal` (loaded idle);
            `none` for figures without energy.
        boundary: the power domains inside, such as `gpu` or `cpu (modelled)`; `client` for latencies.
        grade: how the number is known; a figure of several parts has the grade of its weakest part.
        valid: whether the figure has a value that can be trusted.
        reasons: why it is invalid, or notes on a valid figure.
        interval_95: lower and upper bound of the 95 % interval; null where there is none.
        budget: its uncertainty budget; null where there is none.
    """

    value: float | None
    unit: str
    basis: Basis
    boundary: str
    grade: Grade
    valid: bool = True
    reasons: tuple[Reason, ...] = ()
    interval_95: tuple[float, float] | None = None
    budget: UncertaintyBudget | None = None

    def __post_init__(self) -> None:
        """Check that exactly the figures without a value are invalid, and that each of them has a reason."""
        if self.valid != (self.value is not None):
            raise ValueError("a figure has a value exactly when it is valid")
        if not self.valid and not self.reasons:
            raise ValueError("an invalid figure gives a reason")

    def as_dict(self) -> dict[str, Any]:
        """Return the figure as JSON holds it.

        Raises:
            ValueError: a number is NaN or infinite.
        """
        content: dict[str, Any] = json_values(self)
        return content


def missing_figure(unit: str, basis: Basis, boundary: str, grade: Grade, *reasons: Reason) -> Figure:
    """Return a figure without a value, with its reasons."""
    return Figure(None, unit, basis, boundary, grade, valid=False, reasons=reasons)


def json_values(value: Any) -> Any:
    """Return what `json.load` would give for a struct, or for a container of structs, that was written as JSON.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    return json.loads(json.dumps(msgspec.to_builtins(value, enc_hook=_plain), allow_nan=False))


def _plain(value: Any) -> float:
    """Return a NumPy float as a float."""
    if isinstance(value, float):
        return float(value)
    raise NotImplementedError(f"{type(value)} is no JSON value")
