"""ESS as ML-EcoLyzer defines it, for comparison with work that reports it; not part of the metric family.

Formula:  ESS = parameters / 1e6 / (kgCO2e 1000): millions of parameters per gram of CO2e
Takes:    `carbon_total_g` of the window, `parameters` of model.json.
Source:   ML-EcoLyzer, arXiv 2511.06694, `calculate_ess`.
Defects:  It rewards size: a model of 70 billion parameters scores higher than one of 8 billion at several times the
          energy per token. It has no functional unit: half the requests double the score. It mixes the grid with the
          software, leaves open which parameters of a mixture of experts count, and ignores latency, quality and idle
          power.
Says:     nothing that the family does not say better.
"""

from msgspec import structs

from inference_energy.contracts.figure import Figure
from inference_energy.contracts.reason_codes import reason
from inference_energy.metrics.inputs import WindowInputs
from inference_energy.metrics.uncertainty import inverse, like

UNIT = "M parameters/gCO2e"


def ml_ecolyzer_ess(window: WindowInputs) -> dict[str, Figure]:
    """Return `ess_million_parameters_per_g`, with the note that it is for comparison only."""
    carbon, parameters = window.figures["carbon_total_g"], window.model.parameters if window.model else None
    if not parameters:
        why = (window.model.missing.get("parameters") if window.model else None) or "model.json does not say it"
        absent = [reason("no_parameters", f"How many parameters the model has is not known: {why}.")]
        return {"ess_million_parameters_per_g": like(carbon, None, UNIT, reasons=absent)}
    figure = inverse(carbon, parameters / 1e6, UNIT)
    if figure.valid:
        note = reason(
            "comparison_only", "ESS grows with the model's size and with less work done: for comparison only."
        )
        figure = structs.replace(figure, reasons=(*figure.reasons, note))
    return {"ess_million_parameters_per_g": figure}
