"""Metric 1: energy per output token, and the same turned round.

Formula:  e_o = E / N_out [J/token];  tokens/J = 1 / e_o;  tokens/kWh = 3.6e6 / e_o;  Wh per 1k tokens = e_o / 3.6
Takes:    `energy_{basis}_per_output_token_j` of the window, on each basis (`analysis.intensities`).
Says:     what a generated token costs at this load, its prompt included. It has no meaning without load and basis.
"""

from inference_energy.analysis.figures import scaled
from inference_energy.contracts.figure import Figure
from inference_energy.metrics.inputs import BASES, WindowInputs
from inference_energy.metrics.uncertainty import inverse

WH_PER_1K = 1000 / 3600
J_PER_KWH = 3.6e6


def energy_per_token(window: WindowInputs) -> dict[str, Figure]:
    """`energy_{basis}_per_1k_output_tokens_wh`, `efficiency_{basis}_tokens_per_j` and `..._tokens_per_kwh`."""
    found = {}
    for basis in BASES:
        token = window.figures[f"energy_{basis}_per_output_token_j"]
        found[f"energy_{basis}_per_1k_output_tokens_wh"] = scaled(token, WH_PER_1K, "Wh/1k tokens")
        found[f"efficiency_{basis}_tokens_per_j"] = inverse(token, 1.0, "token/J")
        found[f"efficiency_{basis}_tokens_per_kwh"] = inverse(token, J_PER_KWH, "token/kWh")
    return found
