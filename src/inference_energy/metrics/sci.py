"""Metric 7: software carbon intensity, in the worked form of its specification.

Formula:  SCI = ((E I) + M) / R [gCO2e per R], with R 1000 output tokens or a request
          E I   total energy of the window, idle included, times the configured intensity and PUE
          M     TE (TiR / EL) (RR / ToR): embodied emissions times the window's share of the lifetime times the reserved
                share of the hardware
Takes:    `carbon_per_1k_output_tokens_g`, `carbon_per_request_g` (`impact.carbon`), the window's length and counts.
Needs:    `metrics.embodied`. The intensity is location-based; energy certificates do not count.
Interval: E and R of a window fluctuate together, and M depends on R too; TE, EL and the intensity are taken as stated.
Source:   Green Software Foundation, Software Carbon Intensity Specification 1.1; ISO/IEC 21031:2024.
Says:     emissions per unit at this load. M is charged by time, so tokens of a less loaded server carry more of it.
"""

from inference_energy.analysis.figures import blocking_reasons, make_figure
from inference_energy.config.analysis import EmbodiedConfig
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.reason_codes import reason
from inference_energy.metrics.inputs import WindowInputs
from inference_energy.metrics.uncertainty import LOAD, bounded, fluctuation, like, terms_of

COUNT = "token count"
"""Name of the term for the difference between the client's and the server's counts."""
YEAR_S = 365 * 86400.0
UNITS = {
    "per_1k_output_tokens": ("output_tokens", 1000.0, "gCO2e/1k tokens"),
    "per_request": ("requests", 1.0, "gCO2e/request"),
}
"""For each functional unit: its count, the number that makes one unit, and the unit."""


def sci(window: WindowInputs, embodied: EmbodiedConfig | None) -> dict[str, Figure]:
    """Return `embodied_{per}_g` and `sci_{per}_g`, for `per` in `UNITS`."""
    figures = {}
    for name, (count, many, unit) in UNITS.items():
        operational = window.figures[f"carbon_{name}_g"]
        figures[f"embodied_{name}_g"] = _embodied(window, operational, embodied, count, many, unit)
        figures[f"sci_{name}_g"] = _sum(window, operational, embodied, count, many, unit)
    return figures


def embodied_g(duration_s: float, embodied: EmbodiedConfig) -> float:
    """Return M of a duration [gCO2e]: TE (TiR / EL) (RR / ToR)."""
    return 1000 * embodied.total_kg * duration_s / (embodied.lifetime_years * YEAR_S) * embodied.share


def _no_embodied() -> Reason:
    return reason(
        "no_embodied",
        "Embodied emissions are not configured: write metrics.embodied (total_kg, lifetime_years, share, source).",
    )


def _embodied(
    window: WindowInputs, operational: Figure, embodied: EmbodiedConfig | None, count: str, many: float, unit: str
) -> Figure:
    problems = [*([_no_embodied()] if embodied is None else []), *blocking_reasons(operational)]
    counted = window.figures[count]
    value = None
    if embodied is not None and not problems and counted.value:
        value = embodied_g(window.duration_s, embodied) / counted.value * many
    figure = make_figure(
        value, unit, boundary="hardware as stated", grade="configured", reasons=problems, notes=counted.reasons
    )
    if value is None or embodied is None or not operational.budget:
        return figure
    rate = embodied_g(1.0, embodied) * many
    return bounded(figure, fluctuation(rate * window.lengths_s, window.bins.get(count)))


def _sum(
    window: WindowInputs, operational: Figure, embodied: EmbodiedConfig | None, count: str, many: float, unit: str
) -> Figure:
    counted, energy = window.figures[count].value, window.figures["energy_total_j"]
    problems = [*([_no_embodied()] if embodied is None else []), *blocking_reasons(operational)]
    if problems or embodied is None or operational.value is None or not counted:
        return like(operational, None, unit, reasons=problems)
    total_g = operational.value + embodied_g(window.duration_s, embodied) / counted * many
    boundary = f"{operational.boundary} + embodied"
    figure = like(operational, total_g, unit, notes=operational.reasons, boundary=boundary)
    energy_j = window.above_idle_j("total")
    if not operational.budget or energy_j is None or not energy.value or not operational.value:
        return figure
    # A wrong count affects both parts.
    terms = [
        term.scaled(total_g / operational.value) if term.name == COUNT else term for term in terms_of(operational, LOAD)
    ]
    g_per_j = operational.value * counted / energy.value
    course = g_per_j * energy_j + embodied_g(1.0, embodied) * many * window.lengths_s
    return bounded(figure, [*terms, *fluctuation(course, window.bins.get(count))])
