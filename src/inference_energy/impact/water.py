"""Water that measured energy consumes, on site and at the power station, kept apart.

    site   = E_IT * WUE_site
    source = E_IT * PUE * EWIF

WUE is defined per kWh of IT energy (The Green Grid, 2011), so it never multiplies energy with the PUE inside. EWIF is
the grid's water consumption per kWh generated. Consumption, not withdrawal.
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
    """`water_site_l`, `water_source_l` and `water_total_l` of an energy figure in kWh."""
    if water.wue_site_l_per_kwh is None:
        site = _without(energy_kwh, "impact.water.wue_site_l_per_kwh")
    else:
        site = with_facility(times(energy_kwh, site_water_l(1.0, water.wue_site_l_per_kwh), "L"), 1.0)
    if water.ewif_grid_l_per_kwh is None:
        source = _without(energy_kwh, "impact.water.ewif_grid_l_per_kwh")
    else:
        source = with_facility(times(energy_kwh, source_water_l(1.0, water.ewif_grid_l_per_kwh, pue), "L"), pue)
    return {"water_site_l": site, "water_source_l": source, "water_total_l": _sum(site, source)}


def _without(energy: Figure, key: str) -> Figure:
    problems: list[Reason] = [
        *invalid(energy),
        reason("no_factor", f"{key} is not given: write the factor and where it comes from (impact.water.source)."),
    ]
    return judged(
        None,
        "L",
        boundary=energy.boundary,
        grade=worst([energy.grade, "configured"]),
        basis=energy.basis,
        reasons=problems,
    )


def _sum(site: Figure, source: Figure) -> Figure:
    problems = dict.fromkeys([*invalid(site), *invalid(source)])
    value = None
    if site.value is not None and source.value is not None:
        value = site.value + source.value
    return judged(
        value,
        "L",
        boundary=source.boundary,
        grade=worst([site.grade, source.grade]),
        basis=site.basis,
        reasons=problems,
        notes=dict.fromkeys([*site.reasons, *source.reasons]),
    )
