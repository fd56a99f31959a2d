"""Metric 8: water consumed on site and at the power station, kept separate.

Formula:  site = E_IT WUE_site;  source = E_IT PUE EWIF_grid [L], and for 1000 output tokens
Takes:    `water_site_l`, `water_source_l` (`impact.water`), `energy_total_per_output_token_j`.
Needs:    `impact.water`, each factor with its source.
Source:   The Green Grid, Water Usage Effectiveness (2011): WUE multiplies IT energy, never energy with the PUE inside.
          Li, Yang, Islam, Ren, arXiv 2304.03271, for the two parts.
Says:     consumption, not withdrawal. The two parts occur in places of different scarcity, so their sum says less.
"""

from msgspec import structs

from inference_energy.analysis.figures import blocking_reasons, scaled
from inference_energy.contracts.figure import Figure
from inference_energy.contracts.grades import weakest
from inference_energy.metrics.inputs import WindowInputs
from inference_energy.metrics.uncertainty import like

PARTS = ("site", "source")
UNIT = "L/1k tokens"


def water_per_token(window: WindowInputs) -> dict[str, Figure]:
    """Return `water_site_per_1k_output_tokens_l` and `water_source_per_1k_output_tokens_l`."""
    return {f"water_{part}_per_1k_output_tokens_l": _part(window, window.figures[f"water_{part}_l"]) for part in PARTS}


def _part(window: WindowInputs, water: Figure) -> Figure:
    energy, token = window.figures["energy_total_j"], window.figures["energy_total_per_output_token_j"]
    problems = [*blocking_reasons(water), *blocking_reasons(token)]
    if problems or water.value is None or not energy.value:
        return like(water, None, UNIT, reasons=problems)
    # The budget of the energy per token accounts for the joint fluctuation of tokens and energy.
    figure = scaled(token, 1000 * water.value / energy.value, UNIT)
    return structs.replace(
        figure, basis=water.basis, boundary=water.boundary, grade=weakest([figure.grade, water.grade])
    )
