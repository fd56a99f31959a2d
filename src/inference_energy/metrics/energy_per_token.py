"""Metric 1: energy per output token, and its inverse.

Formula:  e_o = E / N_out [J/token];  tokens/J = 1 / e_o;  tokens/kWh = 3.6e6 / e_o;  Wh per 1k tokens = e_o / 3.6
Takes:    `energy_{basis}_per_output_token_j` of the window, on each basis (`analysis.energy_per_unit`).
Says:     what a generated token costs at this load, prompt included. It is meaningless without load and basis.
"""

from inference_energy.analysis.energy_per_unit import J_PER_KWH
from inference_energy.analysis.figures import scaled
from inference_energy.contracts.figure import Figure
from inference_energy.metrics.inputs import BASES, WindowInputs
from inference_energy.metrics.uncertainty import inverse

WH_PER_1K = 1000 / 3600


def energy_per_token(window: WindowInputs) -> dict[str, Figure]:
    """Return `energy_{basis}_per_1k_output_tokens_wh`, `efficiency_{basis}_tokens_per_j` and `..._tokens_per_kwh`."""
    figures = {}
    for basis in BASES:
        token = window.figures[f"energy_{basis}_per_output_token_j"]
        figures[f"energy_{basis}_per_1k_output_tokens_wh"] = scaled(token, WH_PER_1K, "Wh/1k tokens")
        figures[f"efficiency_{basis}_tokens_per_j"] = inverse(token, 1.0, "token/J")
        figures[f"efficiency_{basis}_tokens_per_kwh"] = inverse(token, J_PER_KWH, "token/kWh")
    return figures
