"""What the two edges of a window leave open of its energy.

A counter shows its value as of its last update. At each edge it lacks what was used since: anything up to one update of
the power P before that edge, half of it on average, with a rectangular spread. With updates every T that are in no step
with the readings, and t for how long the call takes within which the counter was read,

    u_B^2 = sum over both edges of P^2 (T^2 + t^2) / 12 + ((P_end - P_start) T / 2)^2

The last term is what the two mean lacks differ by. An edge between two readings, where energy is interpolated, adds the
step of power there times their spacing, over sqrt(12). On one machine power, requests and windows have one clock, so
that there is no offset between clocks to add.

Readings of power lack nothing at an edge, but are up to one update old when they are read: the integral is that of a
window so much earlier, and is off by (P_end - P_start) times that age, u = |P_end - P_start| T / sqrt(3). For a meter
that gives a value every ten seconds T is that long.

Readings that keep step with the updates lack nearly the same at both edges, so most of it cancels, and u_B is too wide.
Whether they do is seen in the window itself. At each reading k of the counter, r_k = counter - integral of power: the
integral lacks nothing at the edges, so r moves with what the counter lacks. With s the scatter of r about its straight
line and d the change of r from the first edge to the last,

    u_A^2 = 2 s^2 + d^2 / 3

2 s^2 is the difference of two readings that lack something at random. d holds what drifted or jumped between just these
two edges, and is taken as the half-width of a rectangular distribution, for the integral may be off itself. The smaller
of u_A and u_B is given: where readings and updates slip against each other, or the integral is poor, that is u_B.
Source: JCGM 100:2008 (GUM), 4.2 (type A), 4.3.7 (rectangular bounds).
"""

import math

import numpy as np

from inference_energy.analysis.channels import Channel
from inference_energy.analysis.trapezoid import Times, cumulative, shortfall_s
from inference_energy.analysis.uncertainty.budget import Term

NAME = "window edges"
"""The term's name."""

COUNTER_UPDATE_S = {"nvml": 0.1, "rapl": 0.001}
"""How often a counter moves: measured on an H100 (100 ms); Linux kernel documentation, RAPL (about 1 ms). A counter of
another source is taken to move once a reading."""

MIN_READINGS = 8
"""Fewer readings of the counter in the window say too little of their scatter."""


def edge_term(channel: Channel, start_ns: int, end_ns: int) -> Term:
    """What the two edges leave open, in J.

    Args:
        channel: the readings, which cover the window.
        start_ns: start of the window.
        end_ns: end of the window.
    """
    bound = Term(NAME, "B", _bound_j(channel, start_ns, end_ns), math.inf, "update period and spacing of the readings")
    seen = _seen(channel, start_ns, end_ns)
    found = bound if seen is None or bound.u <= seen.u else seen
    return found.scaled(channel.gain)


def _bound_j(channel: Channel, start_ns: int, end_ns: int) -> float:
    times_ns = channel.main_times_ns()
    u2 = 0.0
    before_w, updates_s = [], []
    held_s = 0.0 if channel.counted else min(channel.power_period_s, (end_ns - start_ns) / 1e9)
    for edge_ns in (start_ns, end_ns):
        place = int(np.clip(np.searchsorted(times_ns, edge_ns), 1, len(times_ns) - 1))
        spacing_s = float(times_ns[place] - times_ns[place - 1]) / 1e9
        around_w = [channel.power_near_w(edge_ns, side_s) for side_s in (-1.0, 1.0)]
        # At the first or last reading of a log there is nothing on one side.
        around_w = [one or other for one, other in zip(around_w, reversed(around_w), strict=True)]
        update_s = COUNTER_UPDATE_S.get(channel.source, spacing_s) if channel.counted else 0.0
        call_s = channel.counter_call_s if channel.counted else 0.0
        u2 += around_w[0] ** 2 * (update_s**2 + call_s**2) / 12
        if times_ns[place] != edge_ns and times_ns[place - 1] != edge_ns:
            u2 += ((around_w[1] - around_w[0]) * spacing_s) ** 2 / 12
        before_w.append(around_w[0])
        updates_s.append(update_s)
    lacks_apart_j = (before_w[1] * updates_s[1] - before_w[0] * updates_s[0]) / 2
    aged_j = (before_w[1] - before_w[0]) * held_s / math.sqrt(3)
    return math.hypot(math.sqrt(u2), lacks_apart_j, aged_j)


def _seen(channel: Channel, start_ns: int, end_ns: int) -> Term | None:
    """u_A; None where there is no integral of power to hold against the counter, or too few readings of it."""
    if not channel.counted or channel.reading is None:
        return None
    counted_ns, read_ns = channel.counter_times_ns, channel.times_ns
    if any(shortfall_s(times_ns, start_ns, end_ns) != (0.0, 0.0) for times_ns in (counted_ns, read_ns)):
        return None
    inside_ns = counted_ns[(counted_ns > start_ns) & (counted_ns < end_ns)]
    nodes_ns: Times = np.concatenate(([start_ns], inside_ns, [end_ns])).astype(np.int64)
    if len(nodes_ns) < MIN_READINGS:
        return None
    counter_j = np.interp(nodes_ns - start_ns, counted_ns - start_ns, channel.counter_j - channel.counter_j[0])
    apart_j = counter_j - counter_j[0] - cumulative(read_ns, channel.power_w, nodes_ns)
    at_s = (nodes_ns - start_ns) / 1e9
    line = np.polynomial.Polynomial.fit(at_s, apart_j, 1)
    freedom = len(nodes_ns) - 2
    scatter2 = float(((apart_j - line(at_s)) ** 2).sum()) / freedom
    u = math.sqrt(2 * scatter2 + float(apart_j[-1] - apart_j[0]) ** 2 / 3)
    return Term(NAME, "A", u, freedom, "scatter of the counter's readings about the integral of power")
