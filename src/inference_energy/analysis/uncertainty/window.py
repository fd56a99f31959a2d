"""What follows from a window's energies: in kWh, and per generated token, per prompt token and per request.

What follows from a window's energies: in kWh, and per generated token, per prompt token and per request.

The budgets of a window's figures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inference_energy.analysis.figures import figure_from_dict, make_figure, ratio, scaled
from inference_energy.analysis.idle import IdlePower
from inference_energy.analysis.integration import Values
from inference_energy.analysis.power_series import PowerSeries
from inference_energy.analysis.sensor_checks import NOTED_HOLE_PERIODS, usual_period_s
from inference_energy.analysis.uncertainty.budget import Term, merged, ratio_error, with_budget
from inference_energy.analysis.uncertainty.terms import corrections_of, edge_term, gap_term, sampling_term, scale_terms
from inference_energy.analysis.windows import bin_edges
from inference_energy.config.analysis import Uncertainty
from inference_energy.contracts.figure import Figure, Reason

J_PER_KWH = 3.6e6
BASES = ("total", "active", "marginal")
PER = {
    "output_token": "output_tokens",
    "prompt_token": "prompt_tokens",
    "request": "requests",
    "good_request": "good_requests",
}
"""What an energy is divided by, and the count's name among the figures of steady_load.json.

Good requests are there only where `analysis.slo` says what is good.
"""

_UNITS = {"output_token": "J/token", "prompt_token": "J/token", "request": "J/request", "good_request": "J/request"}
_NOTHING = {
    "output_token": ("no_tokens", "No token was generated in the window."),
    "prompt_token": ("no_tokens", "No prompt was read in the window."),
    "request": ("no_requests", "No request finished in the window."),
    "good_request": ("no_requests", "No request kept all limits in the window."),
}


def intensities(energies: dict[str, Figure], window: dict[str, Any]) -> dict[str, Figure]:
    """The figures, with the energies' own budgets where they are only scaled, and without intervals where divided.

    Args:
        energies: `energy_total_j`, `energy_active_j` and `energy_marginal_j`.
        window: the window in steady_load.json.
    """
    counts = divisors(window)
    found = {f"energy_{basis}_kwh": scaled(energies[f"energy_{basis}_j"], 1 / J_PER_KWH, "kWh") for basis in BASES}
    return found | {
        f"energy_{basis}_per_{per}_j": ratio(energies[f"energy_{basis}_j"], counts[per], _UNITS[per], *_NOTHING[per])
        for basis in BASES
        for per in counts
    }


def divisors(window: dict[str, Any]) -> dict[str, Figure]:
    """The counts that energies are divided by; requests are none where too many failed."""
    figures = window["figures"]
    counts = {per: figure_from_dict(figures[name]) for per, name in PER.items() if name in figures}
    failed = [Reason(r["code"], r["detail"]) for r in window["reasons"]["tokens"] if r["code"] == "failed_requests"]
    for per in ("request", "good_request"):
        if failed and per in counts and counts[per].valid:
            counts[per] = make_figure(None, "request", boundary="client", grade="counted", reasons=failed)
    return counts


IDLE_OF = {"total": None, "active": "cold", "marginal": "loaded"}


@dataclass(frozen=True)
class MeasuredWindow:
    """A window as it was measured.

    Attributes:
        power: the channels that are added up.
        energies_j: the energy of each, by name.
        bins_j: energy of all of them in each bin, shape (bins,).
        times_ns: start and end.
        interval_s: the sampling period asked for.
    """

    power: list[PowerSeries]
    energies_j: dict[str, float]
    bins_j: Values
    times_ns: tuple[int, int]
    interval_s: float


def with_intervals(
    energies: dict[str, Figure],
    measured: MeasuredWindow,
    idle: dict[str, IdlePower],
    window: dict[str, Any],
    config: Uncertainty,
) -> dict[str, Figure]:
    """All figures of a window with their budgets.

    Args:
        energies: power and energies, without budgets.
        measured: what they come from.
        idle: the idle powers, by kind.
        window: the window in steady_load.json, with its bins of tokens and requests.
        config: what is not known of the sensors.
    """
    start_ns, end_ns = measured.times_ns
    lengths_s = np.diff(bin_edges(start_ns, end_ns)) / 1e9
    terms = {basis: _energy_terms(basis, measured, idle, config) for basis in BASES}
    found = dict(energies)
    for basis in BASES:
        found[f"energy_{basis}_j"] = with_budget(energies[f"energy_{basis}_j"], terms[basis])
    duration_s = (end_ns - start_ns) / 1e9
    spread = _fluctuation(measured.bins_j, lengths_s)
    scaled = [term.scaled(1 / duration_s) for term in terms["total"]]
    found["power_mean_w"] = with_budget(energies["power_mean_w"], [*scaled, *spread])
    found |= intensities(found, window)
    counts = divisors(window)
    for basis in BASES:
        above_j = measured.bins_j - _idle_w(basis, idle) * lengths_s
        for per, name in ((per, PER[per]) for per in counts):
            key, count = f"energy_{basis}_per_{per}_j", counts[per].value
            figure, bins = found[key], np.asarray(window["bins"][name], dtype=np.float64)
            if figure.value is None or not count or len(bins) != len(above_j):
                continue
            own = [term.scaled(1 / count) for term in terms[basis]]
            token = _count_term(window, name, figure.value) if name.endswith("_tokens") else []
            found[key] = with_budget(figure, [*own, *token, *_fluctuation(above_j, bins)])
    return found


def _energy_terms(
    basis: str, measured: MeasuredWindow, idle: dict[str, IdlePower], config: Uncertainty
) -> tuple[Term, ...]:
    """The terms of an energy in J."""
    start_ns, end_ns = measured.times_ns
    duration_s = (end_ns - start_ns) / 1e9
    kind = IDLE_OF[basis]
    subtracted = idle[kind].by_channel_w if kind else {}
    above_j = {
        name: energy_j - subtracted.get(name, 0.0) * duration_s for name, energy_j in measured.energies_j.items()
    }
    found = list(scale_terms(above_j, 0.0 if kind else duration_s, corrections_of(measured.power), config))
    if kind is not None:
        found += [term.scaled(duration_s) for term in idle[kind].own_terms]
    return merged([*found, *reading_terms(measured.power, measured.times_ns, measured.interval_s)])


def reading_terms(power: Sequence[PowerSeries], times_ns: tuple[int, int], interval_s: float) -> list[Term]:
    """What the readings of some channels leave open of their energy between two times, in J: edges, holes, sampling."""
    start_ns, end_ns = times_ns
    found = []
    for channel in power:
        longest_s = NOTED_HOLE_PERIODS * usual_period_s(channel, interval_s)
        found += [
            edge_term(channel, start_ns, end_ns),
            gap_term(channel, start_ns, end_ns, longest_s),
            sampling_term(channel, start_ns, end_ns),
        ]
    return found


def _idle_w(basis: str, idle: dict[str, IdlePower]) -> float:
    kind = IDLE_OF[basis]
    return (idle[kind].figure.value or 0.0) if kind else 0.0


def _fluctuation(energy_j: Values, counts: Values) -> list[Term]:
    """How far a window of this length may be from the load's own mean."""
    found = ratio_error(energy_j, counts)
    if found is None:
        return []
    basis = f"block bootstrap over the window, blocks of {found.block} s"
    return [Term("fluctuation of the load", "A", found.value, found.dof, basis)]


def _count_term(window: dict[str, Any], name: str, value: float) -> list[Term]:
    """The client's and the server's count differ by so much: taken as a rectangular distribution of that half-width."""
    table = (window["checks"].get("reconciliation") or {}).get("generated" if name == "output_tokens" else "prompt")
    if not table or table.get("share") is None:
        return []
    u = abs(float(table["share"]) * value) / math.sqrt(3)
    return [Term("token count", "B", u, math.inf, "client's count against the server's counter")]
