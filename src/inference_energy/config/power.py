"""Which power sources are read, and how often."""

from typing import Literal

from pydantic import Field, model_validator

from inference_energy.config.meters import Dcgm, Ipmi, NvidiaSmi, PcmPower, Pdu, Redfish, SmartPlug
from inference_energy.config.section import Section

SourceName = Literal[
    "nvml",
    "nvidia-smi",
    "amd-smi",
    "dcgm",
    "rapl",
    "pcm-power",
    "redfish",
    "ipmi",
    "smart-plug",
    "pdu",
    "modelled",
]


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
        "auto",
        description=("auto: every source that measures here, and modelled where none does; or a list of sources"),
    )
    interval_s: float = Field(0.1, gt=0, le=0.1, description="sampling period; 0.1 s or shorter [s]")
    modelled: ModelledPower = Field(default_factory=ModelledPower, description="for machines without a counter")
    nvidia_smi: NvidiaSmi = Field(default_factory=NvidiaSmi, description="for hosts without NVML's library")
    pcm_power: PcmPower = Field(default_factory=PcmPower, description="Intel PCM, where RAPL cannot be read")
    redfish: Redfish | None = Field(None, description="the machine's management controller; null: not used")
    ipmi: Ipmi | None = Field(None, description="the same by IPMI; null: not used")
    smart_plug: SmartPlug | None = Field(None, description="a plug with a meter before the machine; null: not used")
    pdu: Pdu | None = Field(None, description="a power distribution unit before the machine; null: not used")
    dcgm: Dcgm | None = Field(None, description="a DCGM exporter or Prometheus; null: not used")
