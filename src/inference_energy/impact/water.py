"""Water that measured energy consumes, on site and at the power station, kept apart.

    site   = E_IT * WUE_site
    source = E_IT * PUE * EWIF

WUE is defined per kWh of IT energy (The Green Grid, 2011), so it never multiplies energy with the PUE inside. EWIF is
the grid's water consumption per kWh generated. Consumption, not withdrawal. Both parts and their sum come from one
energy, so each has the interval of that energy, scaled; the factors are taken as they are stated.
"""

from inference_energy.analysis.figures import invalid, times
from inference_energy.analysis.validity import judged, reason
from inference_energy.config.impact import WaterConfig
from inference_energy.contracts.figure import Figure, Reason, worst
from inference_energy.impact.carbon import with_facility


def site_water_l(energy_kwh: float, wue_site_l_per_kwh: float) -> float:
    """Water evaporated on site, in L, for an IT energy in kWh."""
    return energy_kwh * wue_site_l_per_kwh


def source_water_l(energy_kwh: float, ewif_grid_l_per_kwh: float, pue: float) -> float:
    """Water consumed at power stations, in L, for an IT energy in kWh."""
    return energy_kwh * pue * ewif_grid_l_per_kwh


def water_figures(energy_kwh: Figure, water: WaterConfig, pue: float) -> dict[str, Figure]:
    """`water_site_l`, `water_source_l` and `water_total_l` of an energy figure in kWh, with their budgets."""

    def litres(per_kwh: float, facility: float) -> Figure:
        return with_facility(times(energy_kwh, per_kwh, "L"), facility)

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
        *invalid(energy),
        *(
            reason("no_factor", f"{key} is not given: write the factor and where it comes from (impact.water.source).")
            for key in keys
        ),
    ]
    return judged(
        None,
        "L",
        boundary=energy.boundary,
        grade=worst([energy.grade, "configured"]),
        basis=energy.basis,
        reasons=problems,
    )
