"""The uncertainty budgets of a window's figures.

An energy in J is that of this very window, so its budget holds the errors of measuring. A power, or an energy per
token, stands for the load that the window is a sample of, so its budget also holds the window's fluctuation: the
bootstrap of energy and tokens together over the window's bins.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from inference_energy.analysis.energy_per_unit import BASES, COUNT_NAMES
from inference_energy.analysis.idle import IdleKind, IdlePower
from inference_energy.analysis.integration import Values
from inference_energy.analysis.power_series import PowerSeries
from inference_energy.analysis.sensor_checks import NOTED_GAP_PERIODS, usual_period_s
from inference_energy.analysis.uncertainty.budget import Term, merged, ratio_error, with_budget
from inference_energy.analysis.uncertainty.terms import corrections_of, edge_term, gap_term, sampling_term, scale_terms
from inference_energy.analysis.windows import bin_edges
from inference_energy.config.analysis import Uncertainty
from inference_energy.contracts.documents.windows import LoadWindow
from inference_energy.contracts.figure import Figure

IDLE_OF_BASIS: dict[str, IdleKind | None] = {"total": None, "active": "cold", "marginal": "loaded"}
"""The idle power that each basis subtracts."""


@dataclass(frozen=True)
class MeasuredWindow:
    """The measured power of a window, and what is stated of its sensors.

    Attributes:
        power: the summed channels.
        energies_j: energy of each, by name.
        bins_j: energy of all of them in each bin, shape (bins,).
        times_ns: start and end.
        interval_s: the sampling period that was asked for.
        idle: the idle powers, by kind.
        uncertainty: what is stated of the sensors.
    """

    power: list[PowerSeries]
    energies_j: dict[str, float]
    bins_j: Values
    times_ns: tuple[int, int]
    interval_s: float
    idle: Mapping[IdleKind, IdlePower]
    uncertainty: Uncertainty

    @property
    def duration_s(self) -> float:
        """Length of the window."""
        return (self.times_ns[1] - self.times_ns[0]) / 1e9

    @property
    def lengths_s(self) -> Values:
        """Lengths of the bins."""
        return np.asarray(np.diff(bin_edges(*self.times_ns)) / 1e9, dtype=np.float64)

    def with_energy_budgets(self, figures: Mapping[str, Figure]) -> dict[str, Figure]:
        """Return power and energies with their budgets."""
        total_terms = [term.scaled(1 / self.duration_s) for term in self.energy_terms["total"]]
        spread = _fluctuation(self.bins_j, self.lengths_s)
        return {
            **figures,
            "power_mean_w": with_budget(figures["power_mean_w"], [*total_terms, *spread]),
            **{
                f"energy_{basis}_j": with_budget(figures[f"energy_{basis}_j"], self.energy_terms[basis])
                for basis in BASES
            },
        }

    def with_unit_budgets(
        self, figures: Mapping[str, Figure], counts: Mapping[str, Figure], window: LoadWindow
    ) -> dict[str, Figure]:
        """Return energies per unit with their budgets.

        Args:
            figures: figures of `energies_per_unit`.
            counts: the counts that they were divided by.
            window: the window's load, with its bins of tokens and requests.
        """
        budgeted = dict(figures)
        for basis in BASES:
            above_j = self.bins_j - self._idle_w(basis) * self.lengths_s
            for unit, figure in counts.items():
                key, name, count = f"energy_{basis}_per_{unit}_j", COUNT_NAMES[unit], figure.value
                quotient, bins = figures[key], np.asarray(window.bins[name], dtype=np.float64)
                if quotient.value is None or not count or len(bins) != len(above_j):
                    continue
                terms = [term.scaled(1 / count) for term in self.energy_terms[basis]]
                token = _count_term(window, name, quotient.value) if name.endswith("_tokens") else []
                budgeted[key] = with_budget(quotient, [*terms, *token, *_fluctuation(above_j, bins)])
        return budgeted

    @cached_property
    def energy_terms(self) -> dict[str, tuple[Term, ...]]:
        """The terms of the energy on each basis [J]."""
        return {basis: self._energy_terms(basis) for basis in BASES}

    def _energy_terms(self, basis: str) -> tuple[Term, ...]:
        duration_s, kind = self.duration_s, IDLE_OF_BASIS[basis]
        subtracted_w = self.idle[kind].by_channel_w if kind else {}
        above_j = {
            name: energy_j - subtracted_w.get(name, 0.0) * duration_s for name, energy_j in self.energies_j.items()
        }
        terms = list(scale_terms(above_j, 0.0 if kind else duration_s, corrections_of(self.power), self.uncertainty))
        if kind is not None:
            terms += [term.scaled(duration_s) for term in self.idle[kind].phase_terms]
        return merged([*terms, *reading_terms(self.power, self.times_ns, self.interval_s)])

    def _idle_w(self, basis: str) -> float:
        kind = IDLE_OF_BASIS[basis]
        return (self.idle[kind].figure.value or 0.0) if kind else 0.0


def reading_terms(power: Sequence[PowerSeries], times_ns: tuple[int, int], interval_s: float) -> list[Term]:
    """Return the terms of the readings between two times [J]: edges, gaps, sampling.

    Args:
        power: the summed channels.
        times_ns: start and end.
        interval_s: the sampling period that was asked for.
    """
    start_ns, end_ns = times_ns
    terms = []
    for channel in power:
        longest_s = NOTED_GAP_PERIODS * usual_period_s(channel, interval_s)
        terms += [
            edge_term(channel, start_ns, end_ns),
            gap_term(channel, start_ns, end_ns, longest_s),
            sampling_term(channel, start_ns, end_ns),
        ]
    return terms


def _fluctuation(energy_j: Values, counts: Values) -> list[Term]:
    """Return how far a window of this length may be from the load's own mean."""
    error = ratio_error(energy_j, counts)
    if error is None:
        return []
    basis = f"block bootstrap over the window, blocks of {error.block} s"
    return [Term("fluctuation of the load", "A", error.value, error.dof, basis)]


def _count_term(window: LoadWindow, name: str, value: float) -> list[Term]:
    """Return the term of a token count: a rectangular distribution with the half-width of the counts' difference."""
    table = window.checks.reconciliation
    comparison = table.generated if name == "output_tokens" else table.prompt
    if comparison is None or comparison.share is None:
        return []
    u = abs(float(comparison.share) * value) / math.sqrt(3)
    return [Term("token count", "B", u, math.inf, "client's count against the server's counter")]
