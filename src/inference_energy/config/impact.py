"""Carbon and water factors. Changing these repeats no measurement."""

from typing import Literal

from pydantic import Field, model_validator

from inference_energy.config.section import Section


class CarbonConfig(Section):
    """The grid's carbon intensity, as one number with its source."""

    zone: str = Field(description="name of the grid zone, for the record")
    intensity_g_per_kwh: float = Field(ge=0, description="carbon intensity [gCO2e/kWh]")
    basis: Literal["lifecycle", "direct", "marginal"] = Field(
        description="what the intensity counts; figures of different basis are never mixed"
    )
    source: str = Field(min_length=3, description="where the intensity comes from, with its year")


class WaterConfig(Section):
    """Water factors: consumption, on site and at the power station."""

    wue_site_l_per_kwh: float | None = Field(None, ge=0, description="site WUE, per kWh of IT energy [L/kWh]")
    ewif_grid_l_per_kwh: float | None = Field(
        None, ge=0, description="energy water intensity factor of the grid [L/kWh]"
    )
    source: str | None = Field(None, description="where the factors come from, with their year")

    @model_validator(mode="after")
    def _factors_have_a_source(self) -> "WaterConfig":
        given = self.wue_site_l_per_kwh is not None or self.ewif_grid_l_per_kwh is not None
        if given and not self.source:
            raise ValueError("a water factor is given without impact.water.source: say where it comes from")
        return self


class ImpactConfig(Section):
    """Carbon and water."""

    carbon: CarbonConfig = Field(description="carbon intensity of the grid")
    pue: float = Field(1.0, ge=1.0, description="power usage effectiveness of the site; 1.0 counts IT energy alone")
    pue_source: str = Field(
        "none: IT energy alone", min_length=3, description="where the PUE comes from, with its year"
    )
    water: WaterConfig = Field(default_factory=WaterConfig, description="water factors; null leaves water out")
