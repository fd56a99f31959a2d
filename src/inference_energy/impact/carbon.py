"""Carbon of measured energy: CO2_g = E_kWh * CI * PUE.

CI is the grid's carbon intensity in gCO2e/kWh, PUE the facility's overhead. Only operation is counted, not what
making the hardware emitted.
"""

from dataclasses import replace

from inference_energy.analysis.figures import times
from inference_energy.contracts.figure import Figure, worst

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
    return with_facility(times(energy, per_j * carbon_g(1 / J_PER_KWH, intensity_g_per_kwh, pue), unit), pue)


def with_facility(figure: Figure, pue: float) -> Figure:
    """The figure with the PUE in its boundary, and a grade no better than `configured`.

    Its interval is that of the energy: the factors are taken as they are stated.
    """
    boundary = f"{figure.boundary}, PUE {pue:g}" if pue != 1 else figure.boundary
    return replace(figure, boundary=boundary, grade=worst([figure.grade, "configured"]))
