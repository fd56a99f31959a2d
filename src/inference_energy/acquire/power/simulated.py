"""The grade `simulated`, which keeps simulated readings from passing as measured.

Measuring code knows one thing of a simulated machine: if `VARIABLE` names a node folder, all readings are simulated.
"""

import os
from pathlib import Path
from typing import Any

from inference_energy.acquire.power.base import PowerSource, SensorChannel

VARIABLE = "INFERENCE_ENERGY_SIMULATED"
GRADE = "simulated"


def simulated_node() -> Path | None:
    """Return the folder of the simulated machine, or None on a real one."""
    folder = os.environ.get(VARIABLE)
    return Path(folder) if folder else None


def labelled(source: PowerSource) -> PowerSource:
    """Return the source; on a simulated machine the source and its channels get the grade `simulated`."""
    return source if simulated_node() is None else _Simulated(source)


class _Simulated(PowerSource):
    """A source whose every grade is `simulated`, whatever it is on a real machine."""

    def __init__(self, source: PowerSource) -> None:
        self.name = source.name
        self.grade = GRADE
        self._source = source

    @property
    def measures(self) -> bool:
        return self._source.measures

    @property
    def required_by_key(self) -> str | None:
        return self._source.required_by_key

    def find_devices(self) -> tuple[str, list[str]]:
        return self._source.find_devices()

    def channels(self) -> list[SensorChannel]:
        channels = self._source.channels()
        for channel in channels:
            channel.grade = GRADE
        return channels

    def describe(self) -> dict[str, Any]:
        return {**self._source.describe(), "grade": GRADE}

    def hide(self, text: str) -> str:
        return self._source.hide(text)

    def close(self) -> None:
        self._source.close()
