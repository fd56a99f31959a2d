"""What all estimators share: their description, and what they are given besides the cases."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from inference_energy.estimate.calibration.record import Calibration
from inference_energy.estimate.cases import Cases
from inference_energy.estimate.measured.rows import MeasuredRow
from inference_energy.estimate.result import Problem, Values

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
    calibration: Calibration | None
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
