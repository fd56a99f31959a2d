"""The sampler's specification: the configuration's section `power` with the facts of one run, as one JSON object."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from inference_energy.config.power import PowerConfig
from inference_energy.errors import InputError


class SamplerSpec(PowerConfig):
    """What to sample, how often and for how long, and the settings of each source.

    `interval_s` is the time between reads; the energy counters of GPUs have their own. `gpus` holds UUIDs or NVML
    indices, null for all. `server_status` is the guardian's status file and `server_pid` a process: either says whose
    CPU time the modelled source counts; with neither it counts the whole machine's. `duration_s` null means until the
    sampler is stopped. `averaging_windows_s` holds measured averaging times of the GPUs' average power, by UUID.
    """

    interval_s: float = Field(default=0.1, ge=0.002, le=60)
    # `choose` refuses an unknown name, and says what there is.
    sources: Literal["auto"] | list[str] = "auto"  # type: ignore[assignment]
    gpus: list[str | int] | None = None
    averaging_windows_s: dict[str, float] = Field(default_factory=dict)
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
