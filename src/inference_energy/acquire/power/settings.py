"""What each power source is told: the part of the sampler's specification that is its own.

What each power source is told: the part of the sampler's specification that is its own.

A source whose settings are null is not set up, and says so. None of them holds a secret: user names, passwords and
community strings come from the environment or from a file that only its owner may read (`credentials.py`).

What the sampler is asked to do, as one JSON object.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference_energy.errors import InputError


class Settings(BaseModel):
    """Settings that cannot be changed, know no further keys, and hold finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NvidiaSmiSettings(Settings):
    """`nvidia-smi` in streaming mode; `command` is how it is called here."""

    command: list[str] = Field(default=["nvidia-smi"], min_length=1)


class PcmPowerSettings(Settings):
    """Intel PCM's CSV stream; `command` is how it is called here."""

    command: list[str] = Field(default=["pcm-power"], min_length=1)
    period_s: float = Field(default=1.0, ge=0.1, le=60)


class RedfishSettings(Settings):
    """A baseboard management controller over HTTPS.

    `endpoint` is its base URL; `chassis` the ids under /redfish/v1/Chassis, null for all that give power; `verify`
    false accepts any certificate, a path names a CA file. `credentials` names where user and password come from.
    """

    endpoint: str = Field(pattern=r"^https?://[^\s/@]+$")
    chassis: list[str] | None = None
    verify: bool | Path = True
    credentials: str = "REDFISH"
    credentials_file: Path | None = None
    period_s: float = Field(default=1.0, ge=0.2, le=60)


class IpmiSettings(Settings):
    """`ipmitool dcmi power reading`: of this machine, or of a BMC named by `host`."""

    command: list[str] = Field(default=["ipmitool"], min_length=1)
    host: str | None = None
    credentials: str = "IPMI"
    credentials_file: Path | None = None
    period_s: float = Field(default=1.0, ge=0.2, le=60)


class SmartPlugSettings(Settings):
    """A plug with a meter: Shelly (Gen2 and newer, RPC) or Tasmota (HTTP). `verify` is as of Redfish."""

    kind: Literal["shelly", "tasmota"]
    address: str = Field(pattern=r"^https?://[^\s/@]+$")
    channel: int = Field(default=0, ge=0)
    verify: bool | Path = True
    credentials: str = "SMART_PLUG"
    credentials_file: Path | None = None
    period_s: float = Field(default=1.0, ge=0.2, le=60)


class PduSettings(Settings):
    """A power distribution unit by SNMP: `oids` are those of the outlets' power, each times `scale_w` W.

    `authentication` and `privacy` are the protocols of version 3, where passwords for them are set.
    """

    host: str = Field(min_length=1)
    port: int = Field(default=161, ge=1, le=65535)
    oids: list[str] = Field(min_length=1)
    scale_w: float = Field(default=1.0, gt=0)
    version: Literal["2c", "3"] = "2c"
    authentication: Literal["md5", "sha", "sha224", "sha256", "sha384", "sha512"] = "sha"
    privacy: Literal["des", "aes", "aes192", "aes256"] = "aes"
    credentials: str = "PDU"
    credentials_file: Path | None = None
    period_s: float = Field(default=1.0, ge=0.2, le=60)


class DcgmSettings(Settings):
    """A DCGM exporter's page, or a Prometheus server that scrapes it.

    `labels` must match, such as {"Hostname": "gpu3"}. `gpus` of the sampler name UUIDs here. `verify` is as of Redfish.
    """

    kind: Literal["exporter", "prometheus"] = "exporter"
    url: str = Field(pattern=r"^https?://[^\s@]+$")
    labels: dict[str, str] = {}
    verify: bool | Path = True
    credentials: str = "DCGM"
    credentials_file: Path | None = None
    period_s: float = Field(default=1.0, ge=0.2, le=60)


class MeterSettings(Settings):
    """All sources that must be set up to be used."""

    nvidia_smi: NvidiaSmiSettings = NvidiaSmiSettings()
    pcm_power: PcmPowerSettings = PcmPowerSettings()
    redfish: RedfishSettings | None = None
    ipmi: IpmiSettings | None = None
    smart_plug: SmartPlugSettings | None = None
    pdu: PduSettings | None = None
    dcgm: DcgmSettings | None = None


class ModelledSpec(Settings):
    """The modelled source's powers in W; without `tdp_w` it is unavailable. `idle_w` 0 counts only the active part."""

    tdp_w: float | None = None
    idle_w: float = 0.0


class SamplerSpec(MeterSettings):
    """What to sample, how often and for how long, and the settings of each source that has some.

    `interval_s` is the time between reads; the energy counters of GPUs have their own. `gpus` holds UUIDs or NVML
    indices, null for all. `server_status` is the guardian's status file and `server_pid` a process: either says whose
    CPU time the modelled source counts; with neither it counts the whole machine's. `duration_s` null means until told.
    `averaging_windows_s` holds, by UUID, what a GPU's average power was found to average over.
    """

    interval_s: float = Field(default=0.1, ge=0.002, le=60)
    sources: Literal["auto"] | list[str] = "auto"
    gpus: list[str | int] | None = None
    averaging_windows_s: dict[str, float] = Field(default_factory=dict)
    modelled: ModelledSpec = ModelledSpec()
    server_status: Path | None = None
    server_pid: int | None = Field(default=None, gt=0)
    duration_s: float | None = Field(default=None, gt=0)

    @classmethod
    def parse(cls, spec: str | dict[str, Any]) -> "SamplerSpec":
        """Check a spec given as JSON text or as a mapping.

        Raises:
            InputError: a key is unknown or a value does not fit; the message names it.
        """
        try:
            return cls.model_validate_json(spec) if isinstance(spec, str) else cls.model_validate(spec)
        except ValidationError as error:
            faults = [f"power.{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
            raise InputError("; ".join(faults)) from error
