"""An uncertainty budget: terms with their standard uncertainties, combined and expanded.

    u_c = sqrt(sum u_i^2),   nu_eff = u_c^4 / sum(u_i^4 / nu_i),   U = t_0.975(nu_eff) u_c

Terms of type A come from statistics of the readings, those of type B from anything else. They are taken as independent:
what two figures share, such as a card's gain, stands in the budget of each as one term of its own size.
Source: JCGM 100:2008 (GUM), 5.1.2, 6.3 and G.4.1 (Welch-Satterthwaite).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from scipy import stats

from inference_energy.contracts.figure import Figure

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
        """The term of the figure times a factor."""
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
        """The budget of the figure times a factor."""
        return Budget(tuple(term.scaled(factor) for term in self.terms))

    def as_dict(self) -> dict[str, Any]:
        """As a figure holds it: `terms`, `combined`, `dof` (null: infinite), `factor` and `expanded`."""
        return {
            "terms": [
                {
                    "name": term.name,
                    "kind": term.kind,
                    "u": term.u,
                    "dof": term.dof if math.isfinite(term.dof) else None,
                    "basis": term.basis,
                }
                for term in self.terms
            ],
            "combined": self.combined,
            "dof": self.dof if math.isfinite(self.dof) else None,
            "factor": self.factor,
            "expanded": self.expanded,
        }


def load_budget(content: dict[str, Any]) -> Budget:
    """A budget back from JSON."""
    return Budget(
        tuple(
            Term(term["name"], term["kind"], term["u"], math.inf if term["dof"] is None else term["dof"], term["basis"])
            for term in content["terms"]
        )
    )


def with_budget(figure: Figure, terms: Iterable[Term]) -> Figure:
    """The figure with its interval; one without a value, or without any term, stays as it is."""
    kept = tuple(term for term in terms if term.u > 0)
    if figure.value is None or not kept:
        return figure
    budget = Budget(kept)
    low, high = figure.value - budget.expanded, figure.value + budget.expanded
    return replace(figure, interval_95=(low, high), budget=budget.as_dict())


def merged(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Terms of the same name and kind added in quadrature: the parts of a sum, each with its own error."""
    found: dict[tuple[str, str], list[Term]] = {}
    for term in terms:
        found.setdefault((term.name, term.kind), []).append(term)
    return tuple(
        replace(
            parts[0],
            u=math.sqrt(sum(part.u**2 for part in parts)),
            dof=Budget(tuple(parts)).dof if len(parts) > 1 else parts[0].dof,
        )
        for parts in found.values()
    )
