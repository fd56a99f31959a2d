"""Figures as text: digits, unit and interval, or the reasons that stand in their place.

Every page and every terminal line formats its figures here, so that a figure without a value never shows a number, and
a modelled one always carries the word.

Digits: two significant digits of the expanded uncertainty U, and the value rounded to the same place (JCGM 100:2008,
GUM, 7.2.6).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any

from inference_energy.contracts.figure import Figure

SYMMETRIC = 0.01
"""An interval whose middle is this close to the value, as a share of U, is written with ±."""


@dataclass(frozen=True)
class Rounded:
    """A value with its 95 % interval, as text.

    Attributes:
        number: the value, rounded to the place of the last digit of U.
        spread: `± 0.026`, or `[0.43 to 0.49]` where the value is not in the middle.
        low: the lower bound as `number` and `spread` give it.
        high: the upper bound.
    """

    number: str
    spread: str
    low: str
    high: str


def rounded(value: float, low: float, high: float) -> Rounded | None:
    """Return a value with the bounds of its interval; None where the bounds are infinite or have no width."""
    expanded = (high - low) / 2
    if not all(map(math.isfinite, (value, low, high))) or expanded <= 0:
        return None
    # The default context has fewer digits than a value with a very small U can need.
    with localcontext(prec=400):
        last = math.floor(math.log10(expanded)) - 1
        u = _at(expanded, last)
        if u >= Decimal(100).scaleb(last):
            # 9.96 becomes 10, not 10.0.
            last += 1
            u = _at(expanded, last)
        middle = _at(value, last)
        if abs((low + high) / 2 - value) <= SYMMETRIC * expanded:
            below, above = _text(middle - u, last), _text(middle + u, last)
            return Rounded(_text(middle, last), f"± {_text(u, last)}", below, above)
        below, above = _text(_at(low, last), last), _text(_at(high, last), last)
        return Rounded(_text(middle, last), f"[{below} to {above}]", below, above)


def _at(value: float, last: int) -> Decimal:
    """Return a value rounded to a multiple of 10^last."""
    return Decimal(repr(value)).quantize(Decimal(1).scaleb(last), ROUND_HALF_UP)


def _text(value: Decimal, last: int) -> str:
    shown = abs(value) if value == 0 else value
    return f"{shown:,.{max(-last, 0)}f}".replace("-", "−")


NOT_GIVEN = "not given"
UNTRUSTED_GRADES = ("modelled", "simulated")
"""Grades that are always named beside the figure, and that bring the banner on top of a report."""

DIGITS = 3
"""Significant digits: the gain error of a sensor alone leaves no more."""

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_SCALED = ("J", "W", "Wh", "g", "gCO2e", "L", "s")
_COUNTS = ("token", "request", "answer")
_IMPACTS = ("gCO2e", "L")
_WORDS = {
    "token": "tokens",
    "request": "requests",
    "answer": "answers",
    "token/s": "tokens / s",
    "request/s": "requests / s",
    "1/s": "per s",
}
_NEVER_LARGE = ("s", "L")
"""Base units without k, M and G: 2,400 s is easier to read than 2.4 ks."""


@dataclass(frozen=True)
class Scale:
    """A displayed unit, and the factor that converts a value to it."""

    factor: float
    unit: str


PERCENT = Scale(100.0, "%")


@dataclass(frozen=True)
class FormattedFigure:
    """A figure as a page or a terminal shows it.

    Attributes:
        number: the digits, empty if the figure has no value; an interval limits their count.
        spread: half the width of the 95 % interval as `± 0.026`, empty without an interval.
        unit: the unit as shown.
        qualifiers: basis, boundary and grade, except `none`.
        grade: how the value is known.
        has_value: whether there is a number.
        untrusted: whether the grade must be shown beside the number: see `UNTRUSTED_GRADES`.
        reasons: sentences that explain a missing value, or notes on a value.
        interval: lower and upper bound as shown, empty without an interval.
        no_interval_reason: why a value has no interval; empty otherwise.
    """

    number: str
    spread: str
    unit: str
    qualifiers: tuple[str, ...]
    grade: str
    has_value: bool
    untrusted: bool
    reasons: tuple[str, ...]
    interval: str
    no_interval_reason: str

    @property
    def text_without_unit(self) -> str:
        """The number and its spread."""
        return f"{self.number} {self.spread}".strip()

    @property
    def text(self) -> str:
        """The number, its spread and the unit; or the words `not given`."""
        return f"{self.text_without_unit} {self.unit}".strip() if self.has_value else NOT_GIVEN

    @property
    def tooltip(self) -> str:
        """The interval in full; empty without an interval."""
        return f"95\u00a0% interval: {self.interval} {self.unit}".strip() if self.interval else ""

    @property
    def why(self) -> str:
        """The reasons as one text."""
        return " ".join(self.reasons)


def significant(value: float, digits: int = DIGITS) -> str:
    """Return a number with this many significant digits and separated thousands, never in scientific notation."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    return f"{rounded:,.{max(decimals, 0)}f}".replace("-", "−")


def whole(value: float) -> str:
    """Return a count with separated thousands."""
    return f"{value:,.0f}".replace("-", "−")


def scale_for(values: Iterable[float | None], unit: str) -> Scale:
    """Return the unit that figures side by side share: its prefix keeps the smallest value from falling far below 1.

    Args:
        values: the figures' values; None is skipped.
        unit: such as `J/token`; the part before the slash gets the prefix. `kWh` becomes `Wh` with a prefix.
    """
    base, slash, per = unit.partition("/")
    factor = 1.0
    if unit in _WORDS:
        return Scale(factor, _WORDS[unit])
    if base == "kWh":
        base, factor = "Wh", 1000.0
    shown = pretty_unit(slash + per)
    sizes = [abs(value) * factor for value in values if value is not None and math.isfinite(value) and value != 0]
    if base not in _SCALED or not sizes:
        return Scale(factor, pretty_unit(base) + shown)
    smallest, largest = min(sizes), max(sizes)
    for size, prefix in _PREFIXES:
        if size > 1 and base in _NEVER_LARGE:
            continue
        floor = size if size > 1 or base == "s" else 0.1 * size if size == 1 else 0.05 * size
        if smallest >= floor or (size >= 1 and largest >= (10 if base == "s" else 1000) * size):
            return Scale(factor / size, prefix + pretty_unit(base) + shown)
    return Scale(factor, pretty_unit(base) + shown)


def pretty_unit(unit: str) -> str:
    """Return a unit as people write it: `gCO2e/1k tokens` becomes `g CO₂e / 1k tokens`."""
    if unit in _WORDS:
        return _WORDS[unit]
    shown = unit.replace("gCO2e", "g CO₂e").replace("CO2", "CO₂").replace("_", " ")
    return shown.replace("/", " / ") if any(word in shown for word in _COUNTS) else shown


def format_figure(
    figure: Figure | None, scale: Scale | None = None, *, per: str | None = "", digits: int = DIGITS
) -> FormattedFigure:
    """Format a figure of the summary.

    Args:
        figure: the figure; None if the summary has none.
        scale: the unit to show it in; None picks one for this figure alone.
        per: a plainer name for the part after the unit's slash, such as `output token`; None drops that part, empty
            keeps it.
        digits: significant digits of a figure without an interval; counts are shown whole.
    """
    if figure is None:
        return _without_value((), "", False, ("The summary has no such figure.",))
    grade = figure.grade
    untrusted = grade in UNTRUSTED_GRADES
    reasons = tuple(dict.fromkeys(sentence(reason.detail) for reason in figure.reasons))
    qualifiers = tuple(part for part in (figure.basis, figure.boundary, grade) if part and part != "none")
    value = figure.value
    if value is None:
        return _without_value(qualifiers, grade, untrusted, reasons or ("No reason was recorded.",))
    chosen = scale or scale_for([value], figure.unit)
    unit = chosen.unit
    if per != "" and unit not in _WORDS.values():
        unit = unit.split(" / ")[0] + (f" / {per}" if per else "")
    bounds = figure.interval_95
    digits_of = rounded(*(number * chosen.factor for number in (value, *bounds))) if bounds else None
    if digits_of:
        interval = f"{digits_of.low} to {digits_of.high}"
        return FormattedFigure(
            digits_of.number,
            digits_of.spread,
            unit,
            qualifiers,
            grade,
            True,
            untrusted,
            reasons,
            interval,
            "",
        )
    number = whole(value) if figure.unit in _COUNTS else significant(value * chosen.factor, digits)
    return FormattedFigure(
        number, "", unit, qualifiers, grade, True, untrusted, reasons, "", _no_interval_reason(figure)
    )


def _no_interval_reason(figure: Figure) -> str:
    """Return why a figure has no interval: it is exact, its error is unknown, or the uncertainty was not computed."""
    grade, base = figure.grade, figure.unit.partition("/")[0]
    if grade == "modelled":
        return "No interval: the error of a model is not known."
    if grade == "counted":
        return "No interval: counts and times are exact, and are those of this window alone."
    if grade == "configured":
        return "No interval: stated in the configuration, which gives no error."
    if base in _IMPACTS:
        return "No interval: the error of the configured factors is not known; the energy's own stands beside it."
    return "No interval: its uncertainty was not computed."


def _without_value(
    qualifiers: tuple[str, ...], grade: str, untrusted: bool, reasons: tuple[str, ...]
) -> FormattedFigure:
    return FormattedFigure("", "", "", qualifiers, grade, False, untrusted, reasons, "", "")


def plain(value: Any) -> str:
    """Return any recorded value as text: lists joined, numbers unscaled, null as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) if value else "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items()) if value else "none"
    return str(value)


def sentence(text: str) -> str:
    """Return a text with a capital first letter and a full stop; a configuration key keeps its small letter."""
    stripped = text.strip()
    if not stripped:
        return "No reason was recorded."
    first = stripped.split()[0].rstrip(".:,")
    begun = stripped if "." in first or "_" in first else stripped[0].upper() + stripped[1:]
    return begun + ("" if stripped[-1] in ".!?" else ".")
