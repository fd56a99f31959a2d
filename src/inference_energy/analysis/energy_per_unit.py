"""A window's energies in kWh, and per generated token, per prompt token and per request.

    J/token = energy of the window / tokens that fell into it

Energies in kWh carry the budgets of the energies in J. Quotients have no interval here: the fluctuation of energy and
tokens together is resampled in `uncertainty.window`, which adds their budgets.
"""

from collections.abc import Mapping

from inference_energy.analysis.figures import make_figure, ratio, scaled
from inference_energy.contracts.documents.windows import LoadWindow
from inference_energy.contracts.figure import Figure

J_PER_KWH = 3.6e6
BASES = ("total", "active", "marginal")
COUNT_NAMES = {
    "output_token": "output_tokens",
    "prompt_token": "prompt_tokens",
    "request": "requests",
    "good_request": "good_requests",
}
"""The units that an energy is divided by, and the names of their counts among the figures of steady_load.json.

Good requests exist only where `analysis.slo` says which requests are good.
"""

_UNITS = {"output_token": "J/token", "prompt_token": "J/token", "request": "J/request", "good_request": "J/request"}
_ZERO_REASONS = {
    "output_token": ("no_tokens", "No token was generated in the window."),
    "prompt_token": ("no_tokens", "No prompt was read in the window."),
    "request": ("no_requests", "No request finished in the window."),
    "good_request": ("no_requests", "No request kept all limits in the window."),
}


def energies_per_unit(energies: Mapping[str, Figure], counts: Mapping[str, Figure]) -> dict[str, Figure]:
    """Return the energies in kWh and per unit, on every basis.

    Args:
        energies: `energy_total_j`, `energy_active_j` and `energy_marginal_j`.
        counts: the counts to divide by, of `window_counts`.
    """
    kwh = {f"energy_{basis}_kwh": scaled(energies[f"energy_{basis}_j"], 1 / J_PER_KWH, "kWh") for basis in BASES}
    return kwh | {
        f"energy_{basis}_per_{unit}_j": ratio(energies[f"energy_{basis}_j"], count, _UNITS[unit], *_ZERO_REASONS[unit])
        for basis in BASES
        for unit, count in counts.items()
    }


def window_counts(window: LoadWindow) -> dict[str, Figure]:
    """Return the counts of a window by unit; the counts of requests are missing where too many failed."""
    counts = {unit: window.figures[name] for unit, name in COUNT_NAMES.items() if name in window.figures}
    failed = [why for why in window.reasons.tokens if why.code == "failed_requests"]
    for unit in ("request", "good_request"):
        if failed and unit in counts and counts[unit].valid:
            counts[unit] = make_figure(None, "request", boundary="client", grade="counted", reasons=failed)
    return counts
