"""Uncertainty budgets of figures, and the standard errors of means and ratios over a window.

**A budget** combines terms with their standard uncertainties and expands the result:

    u_c = sqrt(sum u_i^2),   nu_eff = u_c^4 / sum(u_i^4 / nu_i),   U = t_0.975(nu_eff) u_c

Terms of type A come from statistics of the readings, those of type B from anything else. They are taken as independent:
an uncertainty that two figures share, such as a card's gain, is a term in the budget of each, with its own size there.
Source: JCGM 100:2008 (GUM), 5.1.2, 6.3 and G.4.1 (Welch-Satterthwaite).

**Standard errors** come from the circular block bootstrap. Readings of a served load are correlated over some seconds,
so whole blocks are resampled, never single readings. The block length is that of Politis and White for the figure's own
linearised series; with n bins in blocks of L, the standard error has n / L - 1 degrees of freedom, and is raised by
sqrt(n / (n - L)) for the variation that so few blocks cannot show.
Sources: Politis and Romano, in Exploring the Limits of Bootstrap (1992); Politis and White, Econometric Reviews 23
(2004), corrected by Patton, Politis and White, Econometric Reviews 28 (2009).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from msgspec import structs
from numpy.typing import NDArray
from scipy import stats

from inference_energy.analysis.integration import Values
from inference_energy.contracts.figure import Figure, UncertaintyBudget, UncertaintyTerm

REPEATS = 499
MIN_BINS = 8
MIN_BLOCKS = 6
SEED = 20260701


@dataclass(frozen=True)
class StandardError:
    """A standard error, its degrees of freedom, and the block length in bins behind it."""

    value: float
    dof: float
    block: int


def ratio_error(numerator: Values, denominator: Values, *, longest: bool = False) -> StandardError | None:
    """Return the standard error of sum(numerator) / sum(denominator).

    It is None for fewer than `MIN_BINS` bins, and where the denominators do not sum to more than zero.

    Args:
        numerator: one sum a bin, such as energy [J]; shape (bins,).
        denominator: one a bin, such as tokens, or the bins' lengths for a mean rate.
        longest: take the longest blocks allowed, for a test that must not raise false alarms.
    """
    count = len(numerator)
    total = float(denominator.sum())
    if count < MIN_BINS or total <= 0:
        return None
    ratio = float(numerator.sum()) / total
    # The ratio's error is, to first order, the mean of this series over the denominator's mean.
    linear = numerator - ratio * denominator
    if float(np.ptp(linear)) <= 1e-12 * max(float(np.abs(numerator).max()), 1e-300):
        return StandardError(0.0, math.inf, 1)
    block = max(count // MIN_BLOCKS, 1) if longest else block_length(linear)
    indices = resamples(count, block)
    # Resampled linearised, not as a ratio: where most denominators are 0, those of a resample may all be 0.
    means = linear[indices].sum(axis=1) / total
    spread = float(np.std(means, ddof=1)) * math.sqrt(count / (count - block))
    return StandardError(spread, max(count / block - 1.0, 1.0), block)


def block_length(series: Values) -> int:
    """Return the block length in bins, short enough that `MIN_BLOCKS` fit."""
    from arch.bootstrap import optimal_block_length  # here, because it takes a second to import

    # A series that is constant over a part has no correlation there, which is no error.
    with np.errstate(divide="ignore", invalid="ignore"):
        optimal = float(optimal_block_length(series)["circular"].iloc[0])
    longest = max(len(series) // MIN_BLOCKS, 1)
    # The optimal order of magnitude, n^(1/3), is the least: the estimate is often too short for so few bins.
    least = len(series) ** (1 / 3)
    return int(np.clip(math.ceil(max(optimal, least) if math.isfinite(optimal) else least), 1, longest))


@lru_cache(maxsize=128)
def resamples(count: int, block: int, repeats: int = REPEATS, stream: int = 0) -> NDArray[np.intp]:
    """Return the bins of each resample, shape (repeats, count).

    The same arguments give the same bins, so figures can be recomputed.
    """
    from arch.bootstrap import CircularBlockBootstrap

    random = np.random.default_rng([SEED, stream])
    draws = CircularBlockBootstrap(block, np.arange(count), seed=random)
    return np.array([data[0][0] for data in draws.bootstrap(repeats)], dtype=np.intp)


COVERAGE = 0.95


@dataclass(frozen=True)
class Term:
    """One source of uncertainty.

    Attributes:
        name: short, the same for the same source everywhere.
        kind: A (statistics) or B (anything else).
        u: standard uncertainty, in the figure's unit.
        dof: degrees of freedom behind `u`; infinite where it is stated, not estimated.
        basis: where it comes from, in a few words.
    """

    name: str
    kind: Literal["A", "B"]
    u: float
    dof: float
    basis: str

    def scaled(self, factor: float) -> "Term":
        """Return the term of the figure times a factor."""
        return replace(self, u=abs(factor) * self.u)


@dataclass(frozen=True)
class Budget:
    """The terms of one figure."""

    terms: tuple[Term, ...]

    @property
    def combined(self) -> float:
        """u_c, in the figure's unit."""
        return math.sqrt(sum(term.u**2 for term in self.terms))

    @property
    def dof(self) -> float:
        """Effective degrees of freedom."""
        spread = sum(term.u**4 / term.dof for term in self.terms if math.isfinite(term.dof))
        return self.combined**4 / spread if spread > 0 else math.inf

    @property
    def factor(self) -> float:
        """The coverage factor k."""
        freedom = max(self.dof, 1.0)
        return float(stats.t.ppf(0.5 + COVERAGE / 2, freedom) if math.isfinite(freedom) else stats.norm.ppf(0.975))

    @property
    def expanded(self) -> float:
        """U, half the width of the 95 % interval."""
        return self.factor * self.combined

    def scaled(self, factor: float) -> "Budget":
        """Return the budget of the figure times a factor."""
        return Budget(tuple(term.scaled(factor) for term in self.terms))

    def record(self) -> UncertaintyBudget:
        """Return the budget as a figure holds it."""
        return UncertaintyBudget(
            terms=tuple(
                UncertaintyTerm(term.name, term.kind, term.u, _finite(term.dof), term.basis) for term in self.terms
            ),
            combined=self.combined,
            dof=_finite(self.dof),
            factor=self.factor,
            expanded=self.expanded,
        )

    @classmethod
    def from_record(cls, record: UncertaintyBudget | None) -> "Budget":
        """Return the budget of a figure; without terms where it has none."""
        terms = () if record is None else record.terms
        return cls(
            tuple(
                Term(term.name, term.kind, term.u, math.inf if term.dof is None else term.dof, term.basis)
                for term in terms
            )
        )


def _finite(dof: float) -> float | None:
    return dof if math.isfinite(dof) else None


def with_budget(figure: Figure, terms: Iterable[Term]) -> Figure:
    """Return the figure with its interval; a figure without a value or without any term is unchanged."""
    kept = tuple(term for term in terms if term.u > 0)
    if figure.value is None or not kept:
        return figure
    budget = Budget(kept)
    low, high = figure.value - budget.expanded, figure.value + budget.expanded
    return structs.replace(figure, interval_95=(low, high), budget=budget.record())


def merged(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Add terms of the same name and kind in quadrature: the parts of a sum, each with its own error."""
    groups: dict[tuple[str, str], list[Term]] = {}
    for term in terms:
        groups.setdefault((term.name, term.kind), []).append(term)
    return tuple(
        replace(
            parts[0],
            u=math.sqrt(sum(part.u**2 for part in parts)),
            dof=Budget(tuple(parts)).dof if len(parts) > 1 else parts[0].dof,
        )
        for parts in groups.values()
    )
