"""What a sensor's nature leaves uncertain of an energy: its scale, holes in the log, what lies between readings.

A card's gain and offset are systematic and its own: they are the same in every window, cancel
between runs on one card and not between cards, and are taken as independent between devices. No software can see them;
`analysis.uncertainty` says how large they may be. Source of the size for GPUs: Yang, Adamek, Armour, SC24
(arXiv 2312.02741): cards were off by up to 5 % and more either way, a rectangular distribution of half-width 5 %.
"""

import math

import numpy as np

from inference_energy.analysis.channels import Channel
from inference_energy.analysis.uncertainty.budget import Term
from inference_energy.config.analysis import Uncertainty


def gain_term(energies_j: dict[str, float], config: Uncertainty) -> Term:
    """Gain of the sensors: each device's energy times the relative uncertainty, devices independent.

    Args:
        energies_j: energy by device, less what is subtracted from it: the same gain errs in both.
        config: the relative standard uncertainty.
    """
    u = config.gain * math.sqrt(sum(energy_j**2 for energy_j in energies_j.values()))
    return Term("sensor gain", "B", u, math.inf, f"{100 * config.gain:g} % of each device's energy, stated")


def offset_term(devices: int, duration_s: float, config: Uncertainty) -> Term:
    """Offset of the sensors over a time, in J; cancels where the same sensor's idle is subtracted."""
    u = config.offset_w * duration_s * math.sqrt(devices)
    return Term("sensor offset", "B", u, math.inf, f"{config.offset_w:g} W of each device, stated")


def gap_term(channel: Channel, start_ns: int, end_ns: int, longest_s: float) -> Term:
    """Holes that were bridged by a straight line, in J: the spread of power times each hole's length, over sqrt(3).

    A counter counts through a hole, so it has none.
    """
    if channel.counted:
        return Term("holes", "B", 0.0, math.inf, "")
    times_ns = channel.times_ns
    inside = (times_ns > start_ns) & (times_ns < end_ns)
    nodes_ns = np.concatenate(([start_ns], times_ns[inside], [end_ns]))
    spacing_s = np.diff(nodes_ns) / 1e9
    holes_s = spacing_s[spacing_s > longest_s]
    spread_w = float(np.std(channel.power_w[inside])) if inside.any() else 0.0
    u = channel.gain * spread_w * math.sqrt(float((holes_s**2).sum())) / math.sqrt(3)
    return Term("holes", "B", u, math.inf, f"{len(holes_s)} hole(s) bridged by a straight line")


def sampling_term(channel: Channel, start_ns: int, end_ns: int) -> Term:
    """What happens between readings, in J, where energy is integrated: half the difference of neighbours, as noise.

    u = dt s sqrt(n / 2), with s the standard deviation of the difference between neighbouring readings.
    """
    if channel.counted:
        return Term("sampling", "A", 0.0, math.inf, "")
    inside = (channel.times_ns >= start_ns) & (channel.times_ns <= end_ns)
    power_w = channel.power_w[inside]
    if len(power_w) < 3:
        return Term("sampling", "A", 0.0, math.inf, "")
    step_s = (end_ns - start_ns) / 1e9 / len(power_w)
    u = channel.gain * step_s * float(np.std(np.diff(power_w))) * math.sqrt(len(power_w) / 2)
    return Term("sampling", "A", u, len(power_w) - 2.0, "differences between neighbouring readings")
