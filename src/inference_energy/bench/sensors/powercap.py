"""The RAPL counters as Linux shows them: a powercap folder, kept up to date for whoever reads it.

As in the kernel, a sub-zone's folder lies within its zone's and is linked to beside it:

    intel-rapl:0/{name,energy_uj,max_energy_range_uj}
    intel-rapl:0/intel-rapl:0:0/{...}
    intel-rapl:0:0 -> intel-rapl:0/intel-rapl:0:0

Source: Linux kernel documentation, power/powercap/powercap.rst.
"""

import os
from pathlib import Path

import numpy as np

from inference_energy.bench.sensors.rapl import RaplView, RaplZone


class Powercap:
    """The folder of one host; `make` it, then `refresh` it often.

    Args:
        root: the folder, which stands for /sys/class/powercap.
        view: the counters.
    """

    def __init__(self, root: Path, view: RaplView) -> None:
        self._root = root
        self._view = view

    def make(self, time_ns: int) -> None:
        """Make the folder, empty for a host without RAPL, with the counters as they are at a time."""
        self._root.mkdir(parents=True, exist_ok=True)
        for zone in self._view.zones:
            folder = self._folder(zone)
            folder.mkdir(parents=True, exist_ok=True)
            _replace(folder / "name", zone.name)
            _replace(folder / "max_energy_range_uj", str(self._view.range_uj))
            beside = self._root / zone.folder
            if not beside.exists():
                beside.symlink_to(folder.relative_to(self._root), target_is_directory=True)
        self.refresh(time_ns)

    def refresh(self, time_ns: int) -> None:
        """Let every counter show its value at a monotonic time; a reader finds the old value or the new one, whole."""
        time = np.array([time_ns], dtype=np.int64)
        for zone in self._view.zones:
            (value_uj,) = self._view.raw_uj(zone, time)
            _replace(self._folder(zone) / "energy_uj", str(int(value_uj)))

    def _folder(self, zone: RaplZone) -> Path:
        """Where a zone's files are: `intel-rapl:0:0` lies in `intel-rapl:0`."""
        parent = zone.folder.rpartition(":")[0]
        return self._root / parent / zone.folder if ":" in parent else self._root / zone.folder


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text + "\n")
    partial.replace(path)
