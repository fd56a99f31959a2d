"""Grades: how the number of a figure is known, from the most to the least trustworthy."""

from collections.abc import Iterable
from typing import Literal, TypeVar

Grade = Literal["counted", "configured", "metered", "counter", "sampled", "modelled", "simulated"]
"""`counted`: token counts and times. `configured`: stated by the user. `metered`: an external meter. `counter`: a
hardware energy counter. `sampled`: the integral of power readings. `modelled`: computed from a model. `simulated`: from
the virtual bench."""

PowerGrade = Literal["metered", "counter", "sampled", "modelled", "simulated"]
"""The grades that a power source can have."""

GRADES: tuple[Grade, ...] = ("counted", "configured", "metered", "counter", "sampled", "modelled", "simulated")
"""All grades, the most trustworthy first."""

POWER_GRADES: tuple[PowerGrade, ...] = ("metered", "counter", "sampled", "modelled", "simulated")
"""The grades that a power source can have, the most trustworthy first."""

_NAMES: tuple[str, ...] = GRADES


G = TypeVar("G", bound=str)


def weakest(grades: Iterable[G]) -> G:
    """Return the grade of a figure or sum made of parts with these grades: that of its least trustworthy part.

    Raises:
        ValueError: there is no grade, or one that is not in `GRADES`.
    """
    return max(grades, key=_NAMES.index)
