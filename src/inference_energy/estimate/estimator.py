"""The estimator: its description, its inputs besides the cases, and its values or the reasons for missing ones."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inference_energy.errors import Setting
from inference_energy.estimate.batch import Cases
from inference_energy.estimate.calibration import EnergyCalibration
from inference_energy.estimate.reference_rows import MeasuredRow
from inference_energy.estimate.shapes.shape import Array

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Problem:
    """Why some cases have no value; `cases` has shape (cases,), `detail` is for `spelled`."""

    cases: Mask
    detail: str


@dataclass(frozen=True)
class Values:
    """Estimates in J per output token, each of shape (cases,); NaN where there is none.

    Attributes:
        point: the estimate; all NaN for a method that gives only a band.
        low: lower end of the method's range; NaN without a range.
        high: upper end.
        problems: why cases have no value.
        gpu: the GPUs' part of the point, if the point includes more; only this part is scored.
        beside: further figures of the method, by name with unit.
        notes: assumptions for one case, by its index; for `spelled`.
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
        """Return values with a range, if there is one."""
        nothing = np.full(point.shape, np.nan)
        return cls(point, nothing if low is None else low, nothing if high is None else high, **more)

    @property
    def scored(self) -> Array:
        """Values to compare with measured GPU energy: the GPUs' part, the point, or the geometric middle of a band."""
        if self.gpu is not None:
            return self.gpu
        middle = np.sqrt(self.low * self.high)
        return np.where(np.isnan(self.point), middle, self.point)

    def without(self, problems: list[Problem]) -> "Values":
        """Return the values without those of the cases with these problems."""
        problems = [problem for problem in problems if problem.cases.any()]
        if not problems:
            return self
        bad = np.logical_or.reduce([problem.cases for problem in (*self.problems, *problems)])

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

NEEDS: dict[Need, str] = {
    "batch": "the mean running batch ({batch})",
    "input_tokens": "the prompt's length ({input_tokens})",
    "output_tokens": "the answer's length ({output_tokens})",
    "context": "the lengths of prompt and answer ({input_tokens}, {output_tokens})",
    "throughput": "the measured throughput in output tokens/s ({throughput})",
}

_OPTIONS = {
    "model": "--model-config",
    "gpu": "--gpu",
    "batch": "--batch",
    "input_tokens": "--input",
    "output_tokens": "--output",
    "throughput": "--throughput",
    "ttft_s": "--ttft",
    "tensor_parallel": "--tp",
    "precision": "--precision",
    "kv_precision": "--kv-precision",
    "calibration": "--calibration",
    "baseline": "--baseline",
}
"""Options of `inference-energy estimate` by the arguments of `estimate_energy`."""


def as_option(setting: Setting) -> str:
    """Return an argument of `estimate_energy` as the option that is typed; other keys stay as they are."""
    option = _OPTIONS.get(setting.key)
    if option is None:
        return str(setting)
    return option if setting.value is None else f"{option} {setting.value}"


def spelled(text: str, spell: Callable[[Setting], str] = as_option) -> str:
    """Return a text with each argument of `estimate_energy` that it names in braces as `spell` shows it."""
    return re.sub(rf"\{{({'|'.join(_OPTIONS)})\}}", lambda match: spell(Setting(match[1])), text)


@dataclass(frozen=True)
class Basis:
    """The data that estimators rest on.

    Attributes:
        rows: measured rows for `lookup` and `scale`.
        calibration: calibration of the energy roofline; None: there is none for these cases.
        baseline: the row that `scale` starts from; None: the row of its default model with the nearest batch.
    """

    rows: tuple[MeasuredRow, ...]
    calibration: EnergyCalibration | None
    baseline: MeasuredRow | None = None


@dataclass(frozen=True)
class Estimator:
    """One estimator.

    Attributes:
        id: its name in tables.
        title: its name in words.
        formula: the formula in plain text.
        source: source of formula and constants.
        boundary: what the figure contains.
        assumes: its assumptions, a sentence each.
        leaves_out: what the figure does not contain, a sentence each.
        needs: required inputs.
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
        """Return the values of all cases; those without a required input have a reason instead."""
        problems = []
        for need in self.needs:
            absent = np.isnan(getattr(cases, need))
            if np.any(absent):
                problems.append(Problem(absent, f"needs {NEEDS[need]}"))
        with np.errstate(invalid="ignore", over="ignore"):
            return self.compute(cases, basis).without(problems)
