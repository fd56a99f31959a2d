"""A day of traffic: a CSV with a row for each hour of the day.

    hour,requests            or            hour,output_tokens
    0,1200                                 0,240000
    ...                                    ...
    23,2400                                23,480000

`hour` runs from 0 to 23, each once, in any order; the other column is the amount requested in that hour. Other columns
are not read.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inference_energy.errors import InputError

Unit = Literal["requests", "output_tokens"]
UNITS: tuple[Unit, ...] = ("requests", "output_tokens")
HOURS = 24


@dataclass(frozen=True)
class Traffic:
    """The amount requested in each hour of a day: `HOURS` numbers, from midnight on."""

    unit: Unit
    hourly: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the traffic as the parameters of the stage `metrics` hold it."""
        return {"unit": self.unit, "hourly": list(self.hourly)}

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Traffic":
        """Build from the result of `as_dict`."""
        return cls(content["unit"], tuple(float(amount) for amount in content["hourly"]))


def read_traffic(path: Path, key: str) -> Traffic:
    """Read a day's profile.

    Args:
        path: the CSV file.
        key: key of the configuration, or option, for messages.

    Raises:
        InputError: the file cannot be read, lacks a column or an hour, or has an amount that is not a number from 0 up.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{key}: {path} cannot be read: {error}") from error
    names = list(rows[0]) if rows else []
    units = [unit for unit in UNITS if unit in names]
    if "hour" not in names or len(units) != 1:
        raise InputError(
            f"{key}: {path} needs a head line with `hour` and one of {', '.join(UNITS)}; found: "
            f"{', '.join(map(str, names)) or 'nothing'}"
        )
    amounts: dict[int, float] = {}
    for number, row in enumerate(rows, start=2):
        location = f"{key}: {path}:{number}"
        hour, amount = _number(row["hour"], f"{location}: hour"), _number(row[units[0]], f"{location}: {units[0]}")
        if hour not in range(HOURS) or int(hour) in amounts:
            raise InputError(f"{location}: hour: each of 0 to {HOURS - 1} once is expected, got {row['hour']!r}")
        amounts[int(hour)] = amount
    lacking = [str(hour) for hour in range(HOURS) if hour not in amounts]
    if lacking:
        raise InputError(f"{key}: {path} lacks hour {', '.join(lacking)}; write 0 where nothing is asked")
    return Traffic(units[0], tuple(amounts[hour] for hour in range(HOURS)))


def _number(text: str | None, location: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise InputError(f"{location}: a number from 0 up is expected, got {text!r}")
    return value
