"""calibration.json: gain and offset of each device or boundary that was compared with an external meter.

    {"version": 1, "calibrations": {NAME: {
        "gain", "offset_w", "u_gain", "u_offset_w", "covariance_w", "chi2_per_dof",
        "meter", "channels", "phases", "grade", "date", "toolkit_version"}}}

NAME is `node`, or a GPU's UUID. A calibrated power is gain * P + offset_w, with P the sum of `channels`; the squared
standard uncertainty that this adds is P^2 u_gain^2 + u_offset_w^2 + 2 P covariance_w.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inference_energy import __version__
from inference_energy.acquire.power.calibrate.line import Line
from inference_energy.acquire.power.calibrate.phases import PhaseMeans
from inference_energy.contracts.tables import clock_anchor, read_json, write_json
from inference_energy.errors import InputError

VERSION = 1


def record(
    line: Line, means: Sequence[PhaseMeans], channels: Sequence[str], meter: dict[str, Any], grade: str
) -> dict[str, Any]:
    """One calibration as it is written.

    Args:
        line: the fit.
        means: what was fitted.
        channels: those that were summed.
        meter: what its source says of itself, and its devices.
        grade: `metered`, or the meter's own grade where it is weaker.
    """
    return {
        **asdict(line),
        "meter": meter,
        "channels": list(channels),
        "phases": [asdict(mean) for mean in means],
        "grade": grade,
        "date": datetime.fromtimestamp(clock_anchor()["unix_ns"] / 1e9, UTC).isoformat(timespec="seconds"),
        "toolkit_version": __version__,
    }


def save(path: Path, name: str, calibration: dict[str, Any]) -> None:
    """Put one calibration into the file; those of other names stay.

    Raises:
        InputError: the file is there and holds something else.
    """
    content = read_json(path) if path.exists() else {"version": VERSION, "calibrations": {}}
    if not isinstance(content, dict) or content.get("version") != VERSION or "calibrations" not in content:
        raise InputError(f"--output {path}: holds something else; name a new file")
    write_json(path, {**content, "calibrations": {**content["calibrations"], name: calibration}})
