"""Stage `carbon`: carbon and water of every window, from its energy figures and the configured factors.

    carbon       = E_IT * CI * PUE
    water site   = E_IT * WUE_site
    water source = E_IT * PUE * EWIF

CI is the grid's carbon intensity in gCO2e/kWh, PUE the facility's overhead. Only operation counts, not the manufacture
of the hardware. WUE is defined per kWh of IT energy (The Green Grid, 2011), so it never multiplies energy that includes
the PUE. EWIF is the grid's water consumption per kWh generated. Water is consumption, not withdrawal. All figures of a
window come from one energy, so each has the interval of that energy, scaled; the factors are taken as stated.
"""

from collections.abc import Mapping

from msgspec import structs

from inference_energy.analysis.energy_per_unit import J_PER_KWH
from inference_energy.analysis.figures import blocking_reasons, make_figure, scaled
from inference_energy.config.analysis import ImpactConfig, WaterConfig
from inference_energy.contracts.documents.document import VERSION
from inference_energy.contracts.documents.energy import (
    CarbonDocument,
    CarbonFactors,
    CarbonWindow,
    EnergyDocument,
    ImpactFactors,
    WaterFactors,
)
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.grades import weakest
from inference_energy.contracts.reason_codes import reason

BASES = ("total", "active", "marginal")


def carbon_g(energy_kwh: float, intensity_g_per_kwh: float, pue: float) -> float:
    """Return the emissions of an energy [gCO2e]."""
    return energy_kwh * intensity_g_per_kwh * pue


def carbon_figure(energy: Figure, per_j: float, intensity_g_per_kwh: float, pue: float, unit: str) -> Figure:
    """Return the carbon of an energy figure.

    Args:
        energy: an energy in J, or in J per something.
        per_j: factor applied first, such as 1000 from J/token to a unit per 1k tokens.
        intensity_g_per_kwh: carbon intensity.
        pue: overhead of the facility; unless 1, the boundary names it.
        unit: unit of the result.
    """
    return with_facility(scaled(energy, per_j * carbon_g(1 / J_PER_KWH, intensity_g_per_kwh, pue), unit), pue)


def with_facility(figure: Figure, pue: float) -> Figure:
    """Return the figure with the PUE in its boundary, and a grade no better than `configured`.

    The interval stays that of the energy: the factors are taken as stated.
    """
    boundary = f"{figure.boundary}, PUE {pue:g}" if pue != 1 else figure.boundary
    return structs.replace(figure, boundary=boundary, grade=weakest([figure.grade, "configured"]))


def site_water_l(energy_kwh: float, wue_site_l_per_kwh: float) -> float:
    """Return the water evaporated on site for an IT energy [L]."""
    return energy_kwh * wue_site_l_per_kwh


def source_water_l(energy_kwh: float, ewif_grid_l_per_kwh: float, pue: float) -> float:
    """Return the water consumed at power stations for an IT energy [L]."""
    return energy_kwh * pue * ewif_grid_l_per_kwh


def water_figures(energy_kwh: Figure, water: WaterConfig, pue: float) -> dict[str, Figure]:
    """Return `water_site_l`, `water_source_l` and `water_total_l` of an energy figure in kWh, with their budgets."""

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
        "water_site_l": litres(site_l, 1.0) if site_l is not None else _missing_water(energy_kwh, lacking[:1]),
        "water_source_l": litres(source_l, pue) if source_l is not None else _missing_water(energy_kwh, lacking[-1:]),
        # Summing the two figures would count the error of their one energy twice.
        "water_total_l": (
            litres(site_l + source_l, pue)
            if site_l is not None and source_l is not None
            else _missing_water(energy_kwh, lacking)
        ),
    }


def _missing_water(energy: Figure, keys: list[str]) -> Figure:
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


def footprint(energy: EnergyDocument, config: ImpactConfig) -> CarbonDocument:
    """Return carbon.json of a session.

    Figures per token and per request without a basis in their name include idle energy (basis total), as the functional
    units of SCI (ISO/IEC 21031:2024) do; `carbon_{active,marginal}_per_1k_output_tokens_g` accompany the energies on
    these bases.

    Args:
        energy: energy.json of the session.
        config: intensity, PUE and water factors.
    """
    carbon, water = config.carbon, config.water
    return CarbonDocument(
        version=VERSION,
        session=energy.session,
        machine=energy.machine,
        server=energy.server,
        factors=ImpactFactors(
            carbon=CarbonFactors(**carbon.model_dump(mode="json")),
            pue=config.pue,
            pue_source=config.pue_source,
            water=WaterFactors(**water.model_dump(mode="json")),
        ),
        windows={
            name: CarbonWindow(
                figures={
                    **carbon_figures(window.figures, carbon.intensity_g_per_kwh, config.pue),
                    **water_figures(window.figures["energy_total_kwh"], water, config.pue),
                }
            )
            for name, window in energy.windows.items()
        },
    )


def carbon_figures(
    figures: Mapping[str, Figure], intensity_g_per_kwh: float, pue: float, bases: tuple[str, ...] = BASES
) -> dict[str, Figure]:
    """Return the carbon of a window's energy figures, which are named as in energy.json, on these bases."""

    def carbon(name: str, per_j: float, unit: str) -> Figure:
        return carbon_figure(figures[name], per_j, intensity_g_per_kwh, pue, unit)

    carbons = {f"carbon_{basis}_g": carbon(f"energy_{basis}_j", 1, "gCO2e") for basis in bases}
    for basis in (basis for basis in bases if basis != "total"):
        energy = f"energy_{basis}_per_output_token_j"
        carbons[f"carbon_{basis}_per_1k_output_tokens_g"] = carbon(energy, 1000, "gCO2e/1k tokens")
    carbons["carbon_per_1k_output_tokens_g"] = carbon("energy_total_per_output_token_j", 1000, "gCO2e/1k tokens")
    carbons["carbon_per_request_g"] = carbon("energy_total_per_request_j", 1, "gCO2e/request")
    return carbons
