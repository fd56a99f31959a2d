"""What an estimator gives: values or reasons, with what it assumes and what it leaves out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference_energy.estimate.shapes.shape import Array

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Problem:
    """Why some cases have no value: which, shape (cases,), and a sentence."""

    where: Mask
    detail: str


@dataclass(frozen=True)
class Values:
    """Estimates in J per output token, each of shape (cases,); NaN where there is none.

    Attributes:
        point: the estimate; all NaN for a method that gives a band only.
        low: lower end of the method's range; NaN where it gives none.
        high: upper end.
        problems: why cases have no value.
        gpu: the part of the point that the GPUs take, where the point holds more; it is what is scored.
        beside: further figures that the method gives, by name with unit.
        notes: what was assumed in one case, asked for by its place.
    """

    point: Array
    low: Array
    high: Array
    problems: tuple[Problem, ...] = ()
    gpu: Array | None = None
    beside: dict[str, Array] = field(default_factory=dict)
    notes: Callable[[int], list[str]] = lambda _: []

    @classmethod
    def points(cls, point: Array, low: Array | None = None, high: Array | None = None, **more: Any) -> "Values":
        """Values with a range where there is one."""
        nothing = np.full(point.shape, np.nan)
        return cls(point, nothing if low is None else low, nothing if high is None else high, **more)

    @property
    def scored(self) -> Array:
        """What is set beside a measured energy of GPUs: their part, the point, or the geometric middle of a band."""
        if self.gpu is not None:
            return self.gpu
        middle = np.sqrt(self.low * self.high)
        return np.where(np.isnan(self.point), middle, self.point)

    def without(self, problems: list[Problem]) -> "Values":
        """The values but for the cases with these problems."""
        problems = [problem for problem in problems if problem.where.any()]
        if not problems:
            return self
        bad = np.logical_or.reduce([problem.where for problem in (*self.problems, *problems)])

        def kept(values: Array) -> Array:
            return np.where(bad, np.nan, values)

        return Values(
            kept(self.point),
            kept(self.low),
            kept(self.high),
            (*problems, *self.problems),
            None if self.gpu is None else kept(self.gpu),
            {name: kept(values) for name, values in self.beside.items()},
            self.notes,
        )
