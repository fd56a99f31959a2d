"""What follows from a window's energies: in kWh, and per generated token, per prompt token and per request."""

from typing import Any

from inference_energy.analysis.figures import load_figure, ratio, times
from inference_energy.analysis.validity import judged
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

Good requests are there only where `analysis.limits` says what is good.
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
    found = {f"energy_{basis}_kwh": times(energies[f"energy_{basis}_j"], 1 / J_PER_KWH, "kWh") for basis in BASES}
    return found | {
        f"energy_{basis}_per_{per}_j": ratio(energies[f"energy_{basis}_j"], counts[per], _UNITS[per], *_NOTHING[per])
        for basis in BASES
        for per in counts
    }


def divisors(window: dict[str, Any]) -> dict[str, Figure]:
    """The counts that energies are divided by; requests are none where too many failed."""
    figures = window["figures"]
    counts = {per: load_figure(figures[name]) for per, name in PER.items() if name in figures}
    failed = [Reason(r["code"], r["detail"]) for r in window["reasons"]["tokens"] if r["code"] == "failed_requests"]
    for per in ("request", "good_request"):
        if failed and per in counts and counts[per].valid:
            counts[per] = judged(None, "request", boundary="client", grade="counted", reasons=failed)
    return counts
