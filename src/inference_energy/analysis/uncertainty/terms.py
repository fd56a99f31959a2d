"""Terms of an energy's uncertainty that come from the sensor: window edges, gain and offset, holes, sampling.

**Window edges, energy counter.** A counter shows its value as of its last update. At each edge it lacks the energy used
since: up to one update period of the power P before that edge, half of it on average, with a rectangular distribution.
With updates every T that are not synchronous with the readings, and with t the duration of the call within which the
counter was read,

    u_B^2 = sum over both edges of P^2 (T^2 + t^2) / 12 + ((P_end - P_start) T / 2)^2

The last term is the difference of the two mean lacks. An edge between two readings, where energy is interpolated, adds
the step of power there times their spacing, over sqrt(12). On one machine power, requests and windows have one clock,
so there is no clock offset to add.

Readings that keep step with the updates lack nearly the same at both edges, so most of it cancels, and u_B is too wide.
The window itself shows whether they do. At each reading k of the counter, r_k = counter - integral of power. The
integral lacks nothing at the edges, so r varies with the energy that the counter lacks. With s the scatter of r about
its straight line and d the change of r from the first edge to the last,

    u_A^2 = 2 s^2 + d^2 / 3

2 s^2 is the variance of the difference of two readings that lack something at random. d holds what drifted or jumped
between just these two edges, and is taken as the half-width of a rectangular distribution, because the integral may be
off itself. The smaller of u_A and u_B is given: where readings and updates slip against each other, or the integral is
poor, that is u_B. Source: JCGM 100:2008 (GUM), 4.2 (type A), 4.3.7 (rectangular bounds).

**Window edges, power readings.** They lack nothing at an edge, but are up to one update old when they are read: the
integral belongs to a window that much earlier, and is off by (P_end - P_start) times that age,
u = |P_end - P_start| T / sqrt(3). For a meter that gives a value every ten seconds T is that long.

**Gain and offset.** They are systematic and specific to a card: the same in every window, so they cancel between runs
on one card but not between cards, and independent between devices. Software cannot see them; `analysis.uncertainty`
states their size. Source of the size for GPUs: Yang, Adamek, Armour, SC24 (arXiv 2312.02741): cards were off by up to
5 % and more either way, a rectangular distribution of half-width 5 %.

A calibrated device has, instead of the stated terms,

    u^2 = (E u_gain)^2 + (T u_offset)^2 + 2 E T cov(gain, offset)        `calibration`
    u   = E' u_meter                                                     `meter`

with E the energy as the sensor gave it, E' = gain E + offset T as calibrated, and T the time. Where the same sensor's
idle is subtracted the offset cancels, so E is the energy above idle and T is 0. The meter's own gain is not part of the
comparison's scatter, and is common to all channels that were compared with it. Source: JCGM 100:2008 (GUM), 5.2 and
H.3.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from inference_energy.analysis.integration import Times, cumulative, shortfall_s
from inference_energy.analysis.power_series import Correction, PowerSeries
from inference_energy.analysis.uncertainty.budget import Term, merged
from inference_energy.config.analysis import Uncertainty

NAME = "window edges"
"""The term's name."""

COUNTER_UPDATE_S = {"nvml": 0.1, "rapl": 0.001}
"""Update period of a counter: measured on an H100 (100 ms); Linux kernel documentation, RAPL (about 1 ms). A counter of
another source is taken to update once a reading."""

MIN_READINGS = 8
"""Fewer readings of the counter in the window do not show its scatter."""


def edge_term(channel: PowerSeries, start_ns: int, end_ns: int) -> Term:
    """Return the uncertainty of the energy from the two edges, in J.

    Args:
        channel: the readings, which cover the window.
        start_ns: start of the window.
        end_ns: end of the window.
    """
    bound = Term(NAME, "B", _bound_j(channel, start_ns, end_ns), math.inf, "update period and spacing of the readings")
    observed = _observed(channel, start_ns, end_ns)
    term = bound if observed is None or bound.u <= observed.u else observed
    return term.scaled(channel.gain)


def _bound_j(channel: PowerSeries, start_ns: int, end_ns: int) -> float:
    times_ns = channel.energy_times_ns
    u2 = 0.0
    before_w, updates_s = [], []
    held_s = 0.0 if channel.uses_counter else min(channel.power_period_s, (end_ns - start_ns) / 1e9)
    for edge_ns in (start_ns, end_ns):
        index = int(np.clip(np.searchsorted(times_ns, edge_ns), 1, len(times_ns) - 1))
        spacing_s = float(times_ns[index] - times_ns[index - 1]) / 1e9
        around_w = [channel.power_near_w(edge_ns, side_s) for side_s in (-1.0, 1.0)]
        # At the first or last reading of a log there is nothing on one side.
        around_w = [one or other for one, other in zip(around_w, reversed(around_w), strict=True)]
        update_s = COUNTER_UPDATE_S.get(channel.source, spacing_s) if channel.uses_counter else 0.0
        call_s = channel.counter_call_s if channel.uses_counter else 0.0
        u2 += around_w[0] ** 2 * (update_s**2 + call_s**2) / 12
        if times_ns[index] != edge_ns and times_ns[index - 1] != edge_ns:
            u2 += ((around_w[1] - around_w[0]) * spacing_s) ** 2 / 12
        before_w.append(around_w[0])
        updates_s.append(update_s)
    lacks_apart_j = (before_w[1] * updates_s[1] - before_w[0] * updates_s[0]) / 2
    aged_j = (before_w[1] - before_w[0]) * held_s / math.sqrt(3)
    return math.hypot(math.sqrt(u2), lacks_apart_j, aged_j)


def _observed(channel: PowerSeries, start_ns: int, end_ns: int) -> Term | None:
    """Return u_A; None without an integral of power to compare the counter with, or with too few readings of it."""
    if not channel.uses_counter or channel.reading is None:
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


def corrections_of(power: Iterable[PowerSeries]) -> dict[str, Correction]:
    """Return the corrections of the calibrated channels by the channels' names."""
    return {channel.name: channel.correction for channel in power if channel.correction is not None}


def scale_terms(
    energies_j: Mapping[str, float], duration_s: float, corrections: Mapping[str, Correction], config: Uncertainty
) -> tuple[Term, ...]:
    """Return the gain and offset terms, stated or calibrated, of a sum of energies in J.

    Args:
        energies_j: the parts by channel, as calibrated, less what is subtracted from each.
        duration_s: the time over which offsets count; 0 for energies above idle.
        corrections: the corrections of the calibrated channels.
        config: the stated uncertainties.
    """
    stated = {name: energy_j for name, energy_j in energies_j.items() if name not in corrections}
    terms = [gain_term(stated, config), offset_term(len(stated), duration_s, config)] if stated else []
    entries: dict[str, list[str]] = {}
    for name in energies_j:
        if name in corrections:
            entries.setdefault(corrections[name].entry, []).append(name)
    if not entries:
        return tuple(terms)
    parts = []
    for names in entries.values():
        correction = corrections[names[0]]
        raw_j = sum(corrections[name].raw_j(energies_j[name], duration_s) for name in names)
        u2 = (
            (raw_j * correction.u_gain) ** 2
            + (duration_s * correction.u_offset_w) ** 2
            + 2 * raw_j * duration_s * correction.covariance_w
        )
        parts.append(Term("calibration", "B", math.sqrt(max(u2, 0.0)), correction.dof, ""))
    bases = "; ".join(dict.fromkeys(corrections[names[0]].basis for names in entries.values()))
    terms += [replace(term, basis=f"comparison with {bases}") for term in merged(parts)]
    metered_j = sum(energies_j[name] for names in entries.values() for name in names)
    text = f"{100 * config.meter_gain:g} % of the calibrated energy, stated for the meter"
    return (*terms, Term("meter", "B", config.meter_gain * abs(metered_j), math.inf, text))


def gain_term(energies_j: dict[str, float], config: Uncertainty) -> Term:
    """Return the term of the sensors' gains: each device's energy times the relative uncertainty, added in quadrature.

    Args:
        energies_j: energy by device, less the idle energy subtracted from it: both have the same gain error.
        config: the relative standard uncertainty.
    """
    u = config.gain * math.sqrt(sum(energy_j**2 for energy_j in energies_j.values()))
    return Term("sensor gain", "B", u, math.inf, f"{100 * config.gain:g} % of each device's energy, stated")


def offset_term(devices: int, duration_s: float, config: Uncertainty) -> Term:
    """Return the term of the sensors' offsets over a time, in J.

    It cancels where the same sensor's idle is subtracted.
    """
    u = config.offset_w * duration_s * math.sqrt(devices)
    return Term("sensor offset", "B", u, math.inf, f"{config.offset_w:g} W of each device, stated")


def gap_term(channel: PowerSeries, start_ns: int, end_ns: int, longest_s: float) -> Term:
    """Return the term of holes bridged by a straight line, in J: spread of power times each hole's length / sqrt(3).

    A counter keeps counting through a hole, so its term is zero.
    """
    if channel.uses_counter:
        return Term("holes", "B", 0.0, math.inf, "")
    times_ns = channel.times_ns
    inside = (times_ns > start_ns) & (times_ns < end_ns)
    nodes_ns = np.concatenate(([start_ns], times_ns[inside], [end_ns]))
    spacing_s = np.diff(nodes_ns) / 1e9
    holes_s = spacing_s[spacing_s > longest_s]
    spread_w = float(np.std(channel.power_w[inside])) if inside.any() else 0.0
    u = channel.gain * spread_w * math.sqrt(float((holes_s**2).sum())) / math.sqrt(3)
    return Term("holes", "B", u, math.inf, f"{len(holes_s)} hole(s) bridged by a straight line")


def sampling_term(channel: PowerSeries, start_ns: int, end_ns: int) -> Term:
    """Return the term of the power between readings, in J, for integrated energy: neighbours' differences as noise.

    u = dt s sqrt(n / 2), with s the standard deviation of the difference between neighbouring readings.
    """
    if channel.uses_counter:
        return Term("sampling", "A", 0.0, math.inf, "")
    inside = (channel.times_ns >= start_ns) & (channel.times_ns <= end_ns)
    power_w = channel.power_w[inside]
    if len(power_w) < 3:
        return Term("sampling", "A", 0.0, math.inf, "")
    step_s = (end_ns - start_ns) / 1e9 / len(power_w)
    u = channel.gain * step_s * float(np.std(np.diff(power_w))) * math.sqrt(len(power_w) / 2)
    return Term("sampling", "A", u, len(power_w) - 2.0, "differences between neighbouring readings")
