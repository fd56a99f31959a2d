"""Mean powers of phases, with their standard uncertainty, from the readings of channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inference_energy.acquire.power.base import Reading
from inference_energy.errors import RunError

Floats = NDArray[np.float64]
BLOCKS = 5
FEWEST_READINGS = 4


class Phase(NamedTuple):
    """A stretch of constant load, in monotonic ns."""

    name: str
    start_ns: int
    end_ns: int


class Track(NamedTuple):
    """The energy of one channel over time: from its counter, or the trapezoid of its power; shape (n,) each."""

    name: str
    time_ns: NDArray[np.int64]
    energy_j: Floats


@dataclass(frozen=True)
class PhaseMeans:
    """One phase's mean powers, each with its standard uncertainty."""

    phase: str
    own_w: float
    u_own_w: float
    meter_w: float
    u_meter_w: float


def track_of(name: str, readings: Sequence[Reading], *, counted: bool) -> Track:
    """The channel's energy.

    Args:
        name: for messages.
        readings: in order of time.
        counted: whether to take its energy counter, where it has one, rather than its power.

    Raises:
        RunError: there are fewer than `FEWEST_READINGS` readings.
    """
    counts = [(r.timestamp_ns, r.energy_counter_j) for r in readings if r.energy_counter_j is not None]
    powered = [(r.timestamp_ns, r.power_w) for r in readings if r.power_w is not None]
    chosen = counts if counts and (counted or not powered) else powered
    if len(chosen) < FEWEST_READINGS:
        raise RunError(f"{name} gave {len(chosen)} readings: too few to compare")
    time_ns = np.array([at_ns for at_ns, _ in chosen], dtype=np.int64)
    values = np.array([value for _, value in chosen], dtype=np.float64)
    if chosen is powered:
        steps_j = np.diff(time_ns) / 1e9 * (values[1:] + values[:-1]) / 2
        values = np.concatenate(([0.0], np.cumsum(steps_j)))
    return Track(name, time_ns, values)


def power_of(tracks: Sequence[Track], phase: Phase) -> tuple[float, float]:
    """(mean, standard uncertainty) in W of the tracks' sum over a phase, from `BLOCKS` equal blocks.

    Raises:
        RunError: a track does not reach over the phase, or has too few readings in it.
    """
    edges_ns = np.linspace(phase.start_ns, phase.end_ns, BLOCKS + 1)
    blocks_w = np.zeros(BLOCKS)
    for track in tracks:
        inside = (track.time_ns >= phase.start_ns) & (track.time_ns <= phase.end_ns)
        if inside.sum() < FEWEST_READINGS or track.time_ns[-1] < phase.end_ns or track.time_ns[0] > phase.start_ns:
            raise RunError(f"{track.name} gave {inside.sum()} readings in the phase {phase.name}: too few to compare")
        blocks_w += np.diff(np.interp(edges_ns, track.time_ns, track.energy_j)) / (np.diff(edges_ns) / 1e9)
    return float(blocks_w.mean()), float(blocks_w.std(ddof=1) / np.sqrt(BLOCKS))


def phase_means(own: Sequence[Track], meter: Sequence[Track], phases: Sequence[Phase]) -> list[PhaseMeans]:
    """Both powers of every phase."""
    return [PhaseMeans(phase.name, *power_of(own, phase), *power_of(meter, phase)) for phase in phases]
