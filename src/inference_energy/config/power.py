"""Which power sources are read, and how often."""

from typing import Literal

from pydantic import Field, model_validator

from inference_energy.config.section import Section

SourceName = Literal["nvml", "rapl", "modelled"]


class ModelledPower(Section):
    """CPU power from the CPU time of the server's processes, for machines without a counter. Always labelled."""

    tdp_w: float | None = Field(None, gt=0, description="package power at full load [W]; null: source not available")
    idle_w: float = Field(0.0, ge=0, description="package power at idle [W]")

    @model_validator(mode="after")
    def _idle_below_tdp(self) -> "ModelledPower":
        if self.tdp_w is not None and self.idle_w >= self.tdp_w:
            raise ValueError(f"idle_w ({self.idle_w}) must be below tdp_w ({self.tdp_w})")
        return self


class PowerConfig(Section):
    """Power sources and sampling."""

    sources: Literal["auto"] | list[SourceName] = Field(
        "auto", description="auto: NVML and RAPL where they can be read, else modelled; or a list of sources"
    )
    interval_s: float = Field(0.1, gt=0, le=0.1, description="sampling period; 0.1 s or shorter [s]")
    modelled: ModelledPower = Field(default_factory=ModelledPower, description="for machines without a counter")
