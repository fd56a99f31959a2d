"""ESS, for comparison with work that reports it. It is no part of the family.

Formula:  ESS = parameters / 1e6 / (kgCO2e 1000): millions of parameters for each gram of CO2e
Takes:    `carbon_total_g` of the window, `parameters` of model.json.
Source:   ML-EcoLyzer, arXiv 2511.06694, `calculate_ess`.
Defects:  It rewards size: a model of 70 billion parameters scores higher than one of 8 billion at several times the
          energy per token. It has no functional unit: half the requests, twice the score. It mixes the grid with the
          software, leaves open which parameters of a mixture of experts count, and knows neither latency nor quality
          nor idle power.
Says:     nothing that the family does not say better.
"""

from msgspec import structs

from inference_energy.analysis.figures import reason
from inference_energy.contracts.figure import Figure
from inference_energy.metrics.inputs import WindowInputs
from inference_energy.metrics.uncertainty import inverse, like

UNIT = "M parameters/gCO2e"


def ess(window: WindowInputs) -> dict[str, Figure]:
    """`ess_million_parameters_per_g`, with the note that it is for comparison."""
    carbon, parameters = window.figures["carbon_total_g"], window.model.get("parameters")
    if not parameters:
        why = (window.model.get("missing") or {}).get("parameters") or "model.json does not say it"
        absent = [reason("no_parameters", f"How many parameters the model has is not known: {why}.")]
        return {"ess_million_parameters_per_g": like(carbon, None, UNIT, reasons=absent)}
    found = inverse(carbon, parameters / 1e6, UNIT)
    if found.valid:
        note = reason(
            "comparison_only", "ESS grows with the model's size and with less work done: for comparison only."
        )
        found = structs.replace(found, reasons=(*found.reasons, note))
    return {"ess_million_parameters_per_g": found}
