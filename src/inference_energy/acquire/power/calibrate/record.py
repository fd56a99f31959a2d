"""Writing calibration.json, whose format `contracts.calibration` defines."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from inference_energy import __version__
from inference_energy.acquire.power.calibrate.line import Line
from inference_energy.acquire.power.calibrate.phases import PhaseMeans
from inference_energy.contracts.calibration import VERSION, Calibration, CalibrationFile
from inference_energy.contracts.tables import clock_anchor, read_json, write_json
from inference_energy.errors import InputError, RunError


def record(
    line: Line, means: Sequence[PhaseMeans], channels: Sequence[str], meter: dict[str, Any], grade: str
) -> Calibration:
    """One calibration.

    Args:
        line: the fit.
        means: what was fitted.
        channels: those that were summed.
        meter: what its source says of itself, and its devices.
        grade: `metered`, or the meter's own grade where it is weaker.

    Raises:
        RunError: the meter's power does not rise with the node's own.
    """
    if line.gain <= 0:
        raise RunError(f"the meter does not follow the node's own power: a gain of {line.gain:.3g} is no gain")
    return Calibration.model_validate(
        {
            **asdict(line),
            "meter": meter,
            "channels": list(channels),
            "phases": [asdict(mean) for mean in means],
            "grade": grade,
            "date": datetime.fromtimestamp(clock_anchor()["unix_ns"] / 1e9, UTC).isoformat(timespec="seconds"),
            "toolkit_version": __version__,
        }
    )


def save(path: Path, name: str, calibration: Calibration) -> None:
    """Put one calibration into the file; those of other names stay.

    Raises:
        InputError: the file is there and holds something else.
    """
    others: dict[str, Calibration] = {}
    if path.exists():
        try:
            others = CalibrationFile.model_validate(read_json(path)).calibrations
        except ValidationError as error:
            raise InputError(f"--output {path}: holds something else; name a new file") from error
    content = CalibrationFile(version=VERSION, calibrations={**others, name: calibration})
    write_json(path, content.model_dump(mode="json"))
