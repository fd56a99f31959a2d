"""Windows of a session: cut at both ends, aligned to readings, and divided into bins.

Windows are half open, [start, end), in monotonic ns. Bins of about a second hold the course of a window, which its
fluctuation is computed from.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.analysis.integration import Times
from inference_energy.config.analysis import WindowTrim
from inference_energy.errors import InputError

BIN_S = 1.0
MAX_ALIGNMENT_S = 3.0
"""Most that is cut off at an end of a window so that it ends at a reading."""


@dataclass(frozen=True)
class Window:
    """A measured stretch of time, in monotonic ns."""

    name: str
    start_ns: int
    end_ns: int

    @property
    def duration_s(self) -> float:
        """Its length."""
        return (self.end_ns - self.start_ns) / 1e9


def bin_edges(start_ns: int, end_ns: int) -> Times:
    """Return the edges of equal bins of about `BIN_S`, one more than there are bins; at least one bin."""
    count = max(round((end_ns - start_ns) / 1e9 / BIN_S), 1)
    return np.asarray(np.linspace(start_ns, end_ns, count + 1).round(), dtype=np.int64)


def trimmed_windows(phases: pd.DataFrame, config: WindowTrim) -> list[Window]:
    """Return the windows of a session, in order, with their starts and ends cut off.

    Raises:
        InputError: a window is not longer than the trim.
    """
    windows = []
    for row in phases[phases["phase"] == "window"].sort_values("start_ns").itertuples():
        start_ns, end_ns = int(str(row.start_ns)), int(str(row.end_ns))
        trims_s = config.trim_start_s + config.trim_end_s
        if (end_ns - start_ns) / 1e9 <= trims_s:
            raise InputError(
                f"window {row.cell} is {(end_ns - start_ns) / 1e9:.3g} s long, no longer than analysis.trim_start_s "
                f"({config.trim_start_s:g}) and analysis.trim_end_s ({config.trim_end_s:g}) together: write a smaller "
                "analysis.trim_start_s, or measure longer windows"
            )
        windows.append(
            Window(str(row.cell), start_ns + round(config.trim_start_s * 1e9), end_ns - round(config.trim_end_s * 1e9))
        )
    return windows


def align_to_readings(window: Window, readings_ns: Times) -> Window:
    """Cut a window to the first and last reading in it, so that no energy is interpolated at its edges.

    The window stays as it is where that would cut off more than `MAX_ALIGNMENT_S` at an end.
    """
    inside = readings_ns[(readings_ns >= window.start_ns) & (readings_ns <= window.end_ns)]
    if len(inside) < 2:
        return window
    start_ns, end_ns = int(inside[0]), int(inside[-1])
    if max(start_ns - window.start_ns, window.end_ns - end_ns) / 1e9 > MAX_ALIGNMENT_S:
        return window
    return Window(window.name, start_ns, end_ns)


def phase_times(phases: pd.DataFrame, name: str) -> tuple[int, int] | None:
    """Return start and end of a phase that occurs once; None where it did not occur."""
    rows = phases[phases["phase"] == name]
    if rows.empty:
        return None
    return int(rows["start_ns"].iloc[0]), int(rows["end_ns"].iloc[0])
