"""The section `power`: which sources are read, how often, and how to reach those that need settings.

One model per source, for the configuration and for the sampler. None holds a secret: `credentials` names the variables
that hold the login, or `credentials_file` the file.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from inference_energy.config.base import Section


class NvidiaSmiSettings(Section):
    """`nvidia-smi` in streaming mode, for hosts without NVML's library."""

    command: list[str] = Field(["nvidia-smi"], min_length=1, description="how it is called")


class PcmPowerSettings(Section):
    """Intel PCM's stream of package and memory energy."""

    command: list[str] = Field(
        ["pcm-power"], min_length=1, description="how it is called, such as [sudo, -n, pcm-power]"
    )
    period_s: float = Field(1.0, ge=0.1, le=60, description="between its readings [s]")


class RemoteSettings(Section):
    """Fields of every device with a login, each of which also has its own `credentials`."""

    credentials_file: str | None = Field(
        None, description="file with the login that only its owner may read (mode 0600); null: from variables"
    )
    period_s: float = Field(1.0, ge=0.2, le=60, description="between readings [s]")


class RedfishSettings(RemoteSettings):
    """A baseboard management controller over HTTPS."""

    endpoint: str = Field(pattern=r"^https?://[^\s/@]+$", description="base URL of the controller")
    chassis: list[str] | None = Field(None, description="ids below /redfish/v1/Chassis; null: all that give power")
    verify: bool | str = Field(True, description="whether its certificate is checked, or the file of the CA")
    credentials: str = Field("REDFISH", description="INFERENCE_ENERGY_<this>_USERNAME and _PASSWORD hold the login")


class IpmiSettings(RemoteSettings):
    """`ipmitool dcmi power reading`."""

    command: list[str] = Field(["ipmitool"], min_length=1, description="how it is called")
    host: str | None = Field(None, description="address of the controller; null: this machine's own")
    credentials: str = Field("IPMI", description="INFERENCE_ENERGY_<this>_USERNAME and _PASSWORD hold the login")


class SmartPlugSettings(RemoteSettings):
    """A plug with a meter."""

    kind: Literal["shelly", "tasmota"] = Field(description="shelly (Gen2 and newer) or tasmota")
    address: str = Field(pattern=r"^https?://[^\s/@]+$", description="its URL")
    channel: int = Field(0, ge=0, description="which outlet")
    verify: bool | str = Field(
        True, description="with https, whether its certificate is checked, or the file of the CA"
    )
    credentials: str = Field("SMART_PLUG", description="INFERENCE_ENERGY_<this>_USERNAME and _PASSWORD hold the login")


class PduSettings(RemoteSettings):
    """A power distribution unit by SNMP."""

    host: str = Field(min_length=1, description="its address")
    port: int = Field(161, ge=1, le=65535, description="UDP port")
    oids: list[str] = Field(min_length=1, description="OIDs of the outlets' power")
    scale_w: float = Field(1.0, gt=0, description="watts of one unit of these OIDs [W]")
    version: Literal["2c", "3"] = Field("2c", description="SNMP version")
    authentication: Literal["md5", "sha", "sha224", "sha256", "sha384", "sha512"] = Field(
        "sha", description="authentication protocol of version 3"
    )
    privacy: Literal["des", "aes", "aes192", "aes256"] = Field(
        "aes", description="encryption of version 3, where a privacy password is set; needs the package cryptography"
    )
    credentials: str = Field(
        "PDU",
        description="INFERENCE_ENERGY_<this>_COMMUNITY, or _USERNAME, _PASSWORD and, to encrypt, _PRIVACY_PASSWORD",
    )


class DcgmSettings(RemoteSettings):
    """A DCGM exporter, or a Prometheus server that scrapes it."""

    kind: Literal["exporter", "prometheus"] = Field("exporter", description="exporter or prometheus")
    url: str = Field(pattern=r"^https?://[^\s@]+$", description="the exporter's page, or Prometheus' base URL")
    labels: dict[str, str] = Field(default_factory=dict, description="labels that must match, such as Hostname")
    verify: bool | str = Field(
        True, description="with https, whether its certificate is checked, or the file of the CA"
    )
    credentials: str = Field("DCGM", description="INFERENCE_ENERGY_<this>_USERNAME and _PASSWORD, or _TOKEN")


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


MeasuredDomain = Literal["gpu", "gpu_memory", "gpu_module", "cpu_package", "dram", "psys", "node"]


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
    plausible_power_w: dict[MeasuredDomain, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description=(
            "readings above this are withheld, per device, such as {gpu: 800, node: 12000}; of others the power limit "
            "that the driver states counts [W]"
        ),
    )
    modelled: ModelledPower = Field(default_factory=ModelledPower, description="for machines without a counter")
    nvidia_smi: NvidiaSmiSettings = Field(
        default_factory=NvidiaSmiSettings, description="for hosts without NVML's library"
    )
    pcm_power: PcmPowerSettings = Field(
        default_factory=PcmPowerSettings, description="Intel PCM, where RAPL cannot be read"
    )
    redfish: RedfishSettings | None = Field(None, description="the machine's management controller; null: not used")
    ipmi: IpmiSettings | None = Field(None, description="the same by IPMI; null: not used")
    smart_plug: SmartPlugSettings | None = Field(
        None, description="a plug with a meter before the machine; null: not used"
    )
    pdu: PduSettings | None = Field(None, description="a power distribution unit before the machine; null: not used")
    dcgm: DcgmSettings | None = Field(None, description="a DCGM exporter or Prometheus; null: not used")
