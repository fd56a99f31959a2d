"""Digits of a value and its uncertainty: two significant digits of U, and the value rounded to the same place.

Source: JCGM 100:2008 (GUM), 7.2.6.
"""

import math
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext

SYMMETRIC = 0.01
"""Bounds whose middle is no further from the value than this share of U are written as ±."""


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
    """A value and the bounds of its interval; None where these are not finite or have no width."""
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
    """A value rounded so that its last digit is that of 10^last."""
    return Decimal(repr(value)).quantize(Decimal(1).scaleb(last), ROUND_HALF_UP)


def _text(value: Decimal, last: int) -> str:
    shown = abs(value) if value == 0 else value
    return f"{shown:,.{max(-last, 0)}f}".replace("-", "−")
