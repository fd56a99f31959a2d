"""calibration.json: gain and offset of each device or boundary that was compared with an external meter.

    {"version": 1, "calibrations": {NAME: {
        "gain", "offset_w", "u_gain", "u_offset_w", "covariance_w", "chi2_per_dof",
        "meter", "channels", "phases", "grade", "date", "toolkit_version"}}}

NAME is `node`, or a GPU's UUID. A calibrated power is gain * P + offset_w, with P the sum of `channels`; the squared
standard uncertainty that this adds is P^2 u_gain^2 + u_offset_w^2 + 2 P covariance_w.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inference_energy.errors import InputError

VERSION: Literal[1] = 1
NODE = "node"
KEY = "analysis.calibration"
_WRITE = "write the path of a file that `inference-energy calibrate` made, or null"
_ROUNDING = 1e-9


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PhasePowers(_Part):
    """Mean powers of one phase of the comparison, each with its standard uncertainty."""

    phase: str
    own_w: float
    u_own_w: float = Field(ge=0)
    meter_w: float
    u_meter_w: float = Field(ge=0)


class Calibration(_Part):
    """One comparison with a meter.

    Attributes:
        gain, offset_w: coefficients of the line meter = gain * own + offset.
        u_gain, u_offset_w, covariance_w: standard uncertainties and covariance of the two.
        chi2_per_dof: about 1 where the uncertainties of the phases explain their scatter.
        meter: `name` of its source, its grade, and its `devices`.
        channels: the channels that were summed, each as `source device domain`.
        phases: the powers that were fitted.
        grade: grade of the meter, `simulated` on the virtual bench.
        date: date of the comparison, ISO 8601.
        toolkit_version: version that wrote it.
    """

    gain: float = Field(gt=0)
    offset_w: float
    u_gain: float = Field(ge=0)
    u_offset_w: float = Field(ge=0)
    covariance_w: float
    chi2_per_dof: float = Field(ge=0)
    meter: dict[str, Any]
    channels: tuple[str, ...] = Field(min_length=1)
    phases: tuple[PhasePowers, ...]
    grade: Literal["metered", "counter", "sampled", "modelled", "simulated"]
    date: str = Field(min_length=10)
    toolkit_version: str

    @model_validator(mode="after")
    def _covariance_can_be(self) -> Self:
        if abs(self.covariance_w) > self.u_gain * self.u_offset_w * (1 + _ROUNDING):
            raise ValueError("covariance_w is larger than u_gain * u_offset_w")
        return self

    @property
    def meter_text(self) -> str:
        """Name the meter: its source, and its devices."""
        devices = ", ".join(map(str, self.meter.get("devices") or []))
        return f"{self.meter.get('name', 'a meter')}{f' ({devices})' if devices else ''}"


class CalibrationFile(_Part):
    """The content of calibration.json."""

    version: Literal[1]
    calibrations: dict[str, Calibration] = Field(min_length=1)


@dataclass(frozen=True)
class Calibrations:
    """The entries of a file by name, the SHA-256 of its bytes, and its path for messages."""

    entries: dict[str, Calibration]
    sha256: str
    shown: str


def channel_text(source: str, device: str, domain: str) -> str:
    """Name a channel as in `Calibration.channels`."""
    return f"{source} {device} {domain}"


def read_calibrations(path: Path) -> Calibrations:
    """Read the file that `analysis.calibration` names.

    Raises:
        InputError: the file cannot be read, or is not a calibration.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{KEY}: {path}: cannot be read: {error.strerror}; {_WRITE}") from error
    try:
        file = CalibrationFile.model_validate(json.loads(content))
    except ValueError as error:  # of JSON, of its encoding, or of pydantic
        raise InputError(f"{KEY}: {path}: {faults(error)}; {_WRITE}") from error
    return Calibrations(file.calibrations, hashlib.sha256(content).hexdigest(), str(path))


def faults(error: ValueError) -> str:
    """Describe the errors in a file's content, in one line."""
    if not isinstance(error, ValidationError):
        return f"not JSON: {error}"
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'content'}: {fault['msg']}" for fault in error.errors())
