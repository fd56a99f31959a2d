"""Metric 4: goodput per joule, the requests that met all SLOs, or their tokens, per joule.

Formula:  G_J = N_good / E [request/J], and with the output tokens of these requests [token/J]
Takes:    `energy_{basis}_per_good_request_j` (`analysis.energy_per_unit`), `good_output_tokens` (`analysis.latency`).
Needs:    `analysis.slo`: without SLOs no request is good or bad.
Says:     how much useful service the energy yields. All energy counts, including the energy of late requests: a server
          beyond its capacity wastes power.
Source:   goodput as in Zhong et al., DistServe, OSDI 2024 (arXiv 2401.09670).
"""

from inference_energy.analysis.figures import blocking_reasons, make_figure
from inference_energy.contracts.figure import Figure, missing_figure
from inference_energy.contracts.grades import weakest
from inference_energy.contracts.reason_codes import reason
from inference_energy.metrics.inputs import BASES, WindowInputs
from inference_energy.metrics.uncertainty import inverse, per


def goodput_per_joule(window: WindowInputs) -> dict[str, Figure]:
    """Return `goodput_{basis}_requests_per_j` and `goodput_{basis}_tokens_per_j`."""
    figures = {}
    for basis in BASES:
        figures[f"goodput_{basis}_requests_per_j"] = requests_per_j(window, basis, 1.0, "request/J")
        figures[f"goodput_{basis}_tokens_per_j"] = _tokens(window, basis)
    return figures


def requests_per_j(window: WindowInputs, basis: str, factor: float, unit: str) -> Figure:
    """Return good requests per joule times a factor, such as 3.6e6 for kWh."""
    request = window.figures.get(f"energy_{basis}_per_good_request_j")
    return _without_slos(window, basis, unit) if request is None else inverse(request, factor, unit)


def _without_slos(window: WindowInputs, basis: str, unit: str) -> Figure:
    """Return the missing figure of a metric that needs SLOs."""
    energy = window.figures[f"energy_{basis}_j"]
    why = reason("no_limits", "No limits are configured: write analysis.slo, such as {ttft_s: 0.5, tpot_s: 0.05}.")
    return missing_figure(unit, energy.basis, energy.boundary, weakest([energy.grade, "counted"]), why)


def _tokens(window: WindowInputs, basis: str) -> Figure:
    tokens = window.figures.get("good_output_tokens")
    if tokens is None:
        return _without_slos(window, basis, "token/J")
    problems = [*blocking_reasons(window.figures["output_tokens"]), *blocking_reasons(tokens)]
    if problems:
        tokens = make_figure(None, "token", boundary=tokens.boundary, grade=tokens.grade, reasons=problems)
    none = ("no_requests", "No request kept all limits in the window.")
    return inverse(per(window, basis, tokens, window.bins.get("good_output_tokens"), "J/token", *none), 1.0, "token/J")
