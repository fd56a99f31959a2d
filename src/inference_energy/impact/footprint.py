"""Carbon of measured energy: CO2_g = E_kWh * CI * PUE.

Carbon of measured energy: CO2_g = E_kWh * CI * PUE.

CI is the grid's carbon intensity in gCO2e/kWh, PUE the facility's overhead. Only operation is counted, not what
making the hardware emitted.

Water that measured energy consumes, on site and at the power station, kept apart.

    site   = E_IT * WUE_site
    source = E_IT * PUE * EWIF

WUE is defined per kWh of IT energy (The Green Grid, 2011), so it never multiplies energy with the PUE inside. EWIF is
the grid's water consumption per kWh generated. Consumption, not withdrawal. Both parts and their sum come from one
energy, so each has the interval of that energy, scaled; the factors are taken as they are stated.

Stage `carbon`: carbon and water of every window, from its energy figures and the configured factors.
"""

from typing import Any

from msgspec import structs

from inference_energy.analysis.figures import blocking_reasons, figure_from_dict, make_figure, reason, scaled
from inference_energy.config.analysis import ImpactConfig, WaterConfig
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.grades import weakest

J_PER_KWH = 3.6e6


def carbon_g(energy_kwh: float, intensity_g_per_kwh: float, pue: float) -> float:
    """Emissions in gCO2e of an energy in kWh."""
    return energy_kwh * intensity_g_per_kwh * pue


def carbon_figure(energy: Figure, per_j: float, intensity_g_per_kwh: float, pue: float, unit: str) -> Figure:
    """The carbon of an energy figure.

    Args:
        energy: an energy in J, or in J per something.
        per_j: what the figure is multiplied by first, such as 1000 for J/token when the unit is per 1k tokens.
        intensity_g_per_kwh: the carbon intensity.
        pue: the facility's overhead; above 1 it is named in the boundary.
        unit: of the result.
    """
    return with_facility(scaled(energy, per_j * carbon_g(1 / J_PER_KWH, intensity_g_per_kwh, pue), unit), pue)


def with_facility(figure: Figure, pue: float) -> Figure:
    """The figure with the PUE in its boundary, and a grade no better than `configured`.

    Its interval is that of the energy: the factors are taken as they are stated.
    """
    boundary = f"{figure.boundary}, PUE {pue:g}" if pue != 1 else figure.boundary
    return structs.replace(figure, boundary=boundary, grade=weakest([figure.grade, "configured"]))


def site_water_l(energy_kwh: float, wue_site_l_per_kwh: float) -> float:
    """Water evaporated on site, in L, for an IT energy in kWh."""
    return energy_kwh * wue_site_l_per_kwh


def source_water_l(energy_kwh: float, ewif_grid_l_per_kwh: float, pue: float) -> float:
    """Water consumed at power stations, in L, for an IT energy in kWh."""
    return energy_kwh * pue * ewif_grid_l_per_kwh


def water_figures(energy_kwh: Figure, water: WaterConfig, pue: float) -> dict[str, Figure]:
    """`water_site_l`, `water_source_l` and `water_total_l` of an energy figure in kWh, with their budgets."""

    def litres(per_kwh: float, facility: float) -> Figure:
        return with_facility(scaled(energy_kwh, per_kwh, "L"), facility)

    wue, ewif = water.wue_site_l_per_kwh, water.ewif_grid_l_per_kwh
    lacking = [
        f"impact.water.{key}"
        for key, factor in (("wue_site_l_per_kwh", wue), ("ewif_grid_l_per_kwh", ewif))
        if factor is None
    ]
    site_l = None if wue is None else site_water_l(1.0, wue)
    source_l = None if ewif is None else source_water_l(1.0, ewif, pue)
    return {
        "water_site_l": litres(site_l, 1.0) if site_l is not None else _without(energy_kwh, lacking[:1]),
        "water_source_l": litres(source_l, pue) if source_l is not None else _without(energy_kwh, lacking[-1:]),
        # Not the sum of two figures: the error of their energy is one and the same, and would be taken for two.
        "water_total_l": (
            litres(site_l + source_l, pue)
            if site_l is not None and source_l is not None
            else _without(energy_kwh, lacking)
        ),
    }


def _without(energy: Figure, keys: list[str]) -> Figure:
    problems: list[Reason] = [
        *blocking_reasons(energy),
        *(
            reason("no_factor", f"{key} is not given: write the factor and where it comes from (impact.water.source).")
            for key in keys
        ),
    ]
    return make_figure(
        None,
        "L",
        boundary=energy.boundary,
        grade=weakest([energy.grade, "configured"]),
        basis=energy.basis,
        reasons=problems,
    )


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
        return carbon_figure(figure_from_dict(figures[name]), per_j, intensity_g_per_kwh, pue, unit)

    found = {f"carbon_{basis}_g": carbon(f"energy_{basis}_j", 1, "gCO2e") for basis in bases}
    for basis in (basis for basis in bases if basis != "total"):
        energy = f"energy_{basis}_per_output_token_j"
        found[f"carbon_{basis}_per_1k_output_tokens_g"] = carbon(energy, 1000, "gCO2e/1k tokens")
    found["carbon_per_1k_output_tokens_g"] = carbon("energy_total_per_output_token_j", 1000, "gCO2e/1k tokens")
    found["carbon_per_request_g"] = carbon("energy_total_per_request_j", 1, "gCO2e/request")
    return found


def _window(figures: dict[str, Any], config: ImpactConfig) -> dict[str, Figure]:
    carbon = carbon_figures(figures, config.carbon.intensity_g_per_kwh, config.pue)
    return carbon | water_figures(figure_from_dict(figures["energy_total_kwh"]), config.water, config.pue)
