"""What an estimator gives: values or reasons, with what it assumes and what it leaves out.

What an estimator gives: values or reasons, with what it assumes and what it leaves out.

What all estimators share: their description, and what they are given besides the cases.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inference_energy.estimate.batch import Cases
from inference_energy.estimate.calibration import EnergyCalibration
from inference_energy.estimate.reference_rows import MeasuredRow
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


Need = Literal["batch", "input_tokens", "output_tokens", "context", "throughput"]

OPTIONS: dict[Need, str] = {
    "batch": "the mean running batch (--batch)",
    "input_tokens": "the prompt's length (--input)",
    "output_tokens": "the answer's length (--output)",
    "context": "the lengths of prompt and answer (--input, --output)",
    "throughput": "the measured throughput in output tokens/s (--throughput)",
}


@dataclass(frozen=True)
class Basis:
    """What estimators rest on.

    Attributes:
        rows: measured rows that `lookup` and `scale` may use.
        calibration: of the energy roofline; None: there is none for these cases.
        baseline: the row that `scale` starts from; None: the nearest by batch of its default model.
    """

    rows: tuple[MeasuredRow, ...]
    calibration: EnergyCalibration | None
    baseline: MeasuredRow | None = None


@dataclass(frozen=True)
class Estimator:
    """One estimator.

    Attributes:
        id: its name in tables.
        title: in words.
        formula: in plain text.
        source: of formula and constants.
        boundary: what the figure contains.
        assumes: what it takes for granted, a sentence each.
        leaves_out: what it does not contain, a sentence each.
        needs: inputs that it cannot do without.
        compute: the formula, over all cases at once; NaN in gives NaN out.
    """

    id: str
    title: str
    formula: str
    source: str
    boundary: str
    assumes: tuple[str, ...]
    leaves_out: tuple[str, ...]
    needs: tuple[Need, ...]
    compute: Callable[[Cases, Basis], Values]

    def estimate(self, cases: Cases, basis: Basis) -> Values:
        """The values of all cases; those that lack an input have none, and a reason."""
        problems = []
        for need in self.needs:
            absent = np.isnan(getattr(cases, need))
            if np.any(absent):
                problems.append(Problem(absent, f"needs {OPTIONS[need]}"))
        with np.errstate(invalid="ignore", over="ignore"):
            return self.compute(cases, basis).without(problems)
