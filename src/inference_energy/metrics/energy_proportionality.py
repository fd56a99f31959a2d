"""Metric 6: energy proportionality, how power follows load over a sweep.

Formula:  with x the share of full load, P(x) linear between the levels, and P(0) the power of the idle server:
          proportionality  EP = 1 - (A - A_ideal) / A_ideal, with A the integral of P over x, and A_ideal = P(1) / 2
          idle to peak     P(0) / P(1)
          overall          sum of rates / sum of powers, at 0, 10, ... 100 % of full load [request/J or token/J]
Takes:    mean powers and rates of steady windows of one workload on one server, and the loaded idle (`metrics.sweep`).
Needs:    at least three levels, none further than half of full load from the next.
Interval: the gain of a card is common to all its powers and cancels in the first two; its offset does not.
Source:   Ryckbosch, Polfliet, Eeckhout, IEEE Computer 44(9) 2011 (EP); Barroso and Hölzle, IEEE Computer 40(12) 2007;
          SPECpower_ssj2008, Design Document (overall). SPEC sets each level's load by its own calibration and runs it;
          here the levels are interpolated between measured ones, so the figure is no SPEC result.
Says:     EP is 1 for a server whose power is proportional to its load, and 0 for one whose power is constant; it can be
          below 0 or above 1. At low load, the energy per token cannot fall below the idle power over the rate.
"""

import numpy as np

from inference_energy.analysis.integration import Values
from inference_energy.config.analysis import Uncertainty
from inference_energy.contracts.documents.experiment import LoadLevel
from inference_energy.contracts.figure import Figure
from inference_energy.metrics.sweep import Sweep, power_at, sweep_figure

LEVELS: Values = np.linspace(0.0, 1.0, 11)


def energy_proportionality(sweep: Sweep, uncertainty: Uncertainty) -> dict[str, Figure]:
    """Return `energy_proportionality`, `idle_to_peak_share` and `overall_{requests,tokens}_per_j`."""
    unit = sweep.rate.unit
    return {
        "energy_proportionality": sweep_figure(sweep, proportionality, "", uncertainty),
        "idle_to_peak_share": sweep_figure(sweep, idle_to_peak, "share", uncertainty),
        f"overall_{unit}s_per_j": sweep_figure(sweep, overall, f"{unit}/J", uncertainty),
    }


def proportionality(idle_w: float, powers_w: Values, rates: Values) -> float:
    """Return EP; see the module's formula."""
    order = np.argsort(rates, kind="stable")
    share = np.concatenate(([0.0], rates[order])) / rates.max()
    power_w = np.concatenate(([idle_w], powers_w[order]))
    ideal = power_w[-1] / 2
    return float(1 - (np.trapezoid(power_w, share) - ideal) / ideal)


def idle_to_peak(idle_w: float, powers_w: Values, rates: Values) -> float:
    """Return P(0) / P(1)."""
    return float(idle_w / powers_w[np.argmax(rates)])


def overall(idle_w: float, powers_w: Values, rates: Values) -> float:
    """Return the sum of rates over the sum of powers at `LEVELS`."""
    levels = LEVELS * rates.max()
    return float(levels.sum() / power_at(idle_w, powers_w, rates, levels).sum())


def power_at_levels(sweep: Sweep) -> list[LoadLevel] | None:
    """Return the power at each of `LEVELS`; None if there is no curve."""
    if sweep.problems:
        return None
    rates = LEVELS * sweep.rates().max()
    powers_w = power_at(sweep.idle_w, sweep.powers_w, sweep.rates(), rates)
    return [
        LoadLevel(load_share=share, rate=rate, power_w=power_w)
        for share, rate, power_w in zip(LEVELS.tolist(), rates.tolist(), powers_w.tolist(), strict=True)
    ]
