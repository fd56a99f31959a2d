"""Stage `carbon`: carbon and water of every window, from its energy figures and the configured factors."""

from typing import Any

from inference_energy.analysis.figures import load_figure
from inference_energy.config.impact import ImpactConfig
from inference_energy.contracts.figure import Figure
from inference_energy.impact.carbon import carbon_figure
from inference_energy.impact.water import water_figures

BASES = ("total", "active", "marginal")


def footprint(energy: dict[str, Any], config: ImpactConfig) -> dict[str, Any]:
    """carbon.json of a session.

    Args:
        energy: its energy.json.
        config: intensity, PUE, water factors.

    Returns:
        `factors`, the configuration with its sources, and `windows`: the figures of each. Per-token and per-request
        figures without a basis in their name include idle energy (basis total), as the functional units of SCI
        (ISO/IEC 21031:2024) do; `carbon_{active,marginal}_per_1k_output_tokens_g` stand beside the energies that are
        shown on that basis.
    """
    return {
        "version": 1,
        **{key: energy[key] for key in ("session", "machine", "server")},
        "factors": config.model_dump(mode="json"),
        "windows": {
            name: {
                "figures": {key: figure.as_dict() for key, figure in _window(window["figures"], config).items()},
            }
            for name, window in energy["windows"].items()
        },
    }


def carbon_figures(
    figures: dict[str, Any], intensity_g_per_kwh: float, pue: float, bases: tuple[str, ...] = BASES
) -> dict[str, Figure]:
    """Carbon of a window's energy figures, which are named as in energy.json, on these bases."""

    def carbon(name: str, per_j: float, unit: str) -> Figure:
        return carbon_figure(load_figure(figures[name]), per_j, intensity_g_per_kwh, pue, unit)

    found = {f"carbon_{basis}_g": carbon(f"energy_{basis}_j", 1, "gCO2e") for basis in bases}
    for basis in (basis for basis in bases if basis != "total"):
        energy = f"energy_{basis}_per_output_token_j"
        found[f"carbon_{basis}_per_1k_output_tokens_g"] = carbon(energy, 1000, "gCO2e/1k tokens")
    found["carbon_per_1k_output_tokens_g"] = carbon("energy_total_per_output_token_j", 1000, "gCO2e/1k tokens")
    found["carbon_per_request_g"] = carbon("energy_total_per_request_j", 1, "gCO2e/request")
    return found


def _window(figures: dict[str, Any], config: ImpactConfig) -> dict[str, Figure]:
    carbon = carbon_figures(figures, config.carbon.intensity_g_per_kwh, config.pue)
    return carbon | water_figures(load_figure(figures["energy_total_kwh"]), config.water, config.pue)
