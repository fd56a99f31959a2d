"""Scores of estimates against measured energies.

With the ratio r = estimate / measured of each row: MAPE is the mean of |r - 1|; exp(mean |ln r|) the typical factor in
either direction, which does not favour estimates that are too low as MAPE does; `within_two` the share of rows with r
between 1/2 and 2.
"""

from dataclasses import dataclass

import numpy as np

from inference_energy.estimate.shapes.shape import Array


@dataclass(frozen=True)
class Score:
    """How far one estimator is from some rows.

    Attributes:
        label: the estimator, with what is special.
        rows: rows that were scored.
        mape: mean absolute relative error.
        log_error: exp(mean |ln ratio|), 1 at best.
        within_two: share within a factor of two.
        median_ratio: estimate over measured; above 1 it is too high.
        covered: share of the rows that its range holds; None where it gives none.
        why: why there is no score.
    """

    label: str
    rows: int
    mape: float = float("nan")
    log_error: float = float("nan")
    within_two: float = float("nan")
    median_ratio: float = float("nan")
    covered: float | None = None
    why: str | None = None

    def as_dict(self) -> dict[str, float | int | str | None]:
        """The score as JSON holds it: null where there is none."""
        there = self.rows > 0
        return {
            "rows": self.rows,
            "mape": self.mape if there else None,
            "exp_mean_abs_ln_ratio": self.log_error if there else None,
            "within_factor_two": self.within_two if there else None,
            "median_ratio": self.median_ratio if there else None,
            "covered": self.covered,
            "unavailable": self.why,
        }


def score(
    label: str,
    estimated_j: Array,
    measured_j: Array,
    low: Array | None = None,
    high: Array | None = None,
    why: str | None = None,
) -> Score:
    """The score over the rows that have an estimate.

    Args:
        label: what is scored.
        estimated_j: shape (rows,), NaN where there is no estimate.
        measured_j: shape (rows,), above zero.
        low: lower end of its range.
        high: upper end.
        why: a sentence for when no row has an estimate.
    """
    there = ~np.isnan(estimated_j)
    if not there.any():
        return Score(label, 0, why=why or "no row has its inputs")
    ratios = estimated_j[there] / measured_j[there]
    logs = np.abs(np.log(ratios))
    covered = None
    if low is not None and high is not None and not np.isnan(low[there]).any():
        inside = (low[there] <= measured_j[there]) & (measured_j[there] <= high[there])
        covered = float(inside.mean())
    return Score(
        label,
        int(there.sum()),
        float(np.mean(np.abs(ratios - 1))),
        float(np.exp(logs.mean())),
        float((logs <= np.log(2)).mean()),
        float(np.median(ratios)),
        covered,
    )
