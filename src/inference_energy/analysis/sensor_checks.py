"""Whether a channel's readings over a window can be trusted: holes, frozen readings, counters, throttling."""

import numpy as np

from inference_energy.analysis.channels import Channel
from inference_energy.analysis.trapezoid import shortfall_s
from inference_energy.analysis.validity import reason
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts.figure import Reason

POWER_CAP = 0x4
HARDWARE_SLOWDOWN = 0x8 | 0x80
THERMAL = 0x20 | 0x40
"""Bits of NVML's clocks event reasons: SwPowerCap; HwSlowdown, HwPowerBrakeSlowdown; Sw- and HwThermalSlowdown."""

MIN_READINGS_TO_CALL_STUCK = 20
MAX_EMPTY_SHARE = 0.05

AVERAGE_DELAY_S = 0.5
"""NVML's average power is that of the last second (boxcar), so its integral trails by half of that. Source: Yang,
Adamek, Armour, SC24 (arXiv 2312.02741). In an even load nothing changes; where power differs between the edges of the
window it does. The figure is not corrected, since not every card averages alike; the effect is estimated and said."""

MAX_DELAY_EFFECT = 0.01


def check_channel(
    channel: Channel, start_ns: int, end_ns: int, interval_s: float, config: AnalysisConfig
) -> list[Reason]:
    """Everything that is wrong with, or worth saying about, a channel over a window.

    Args:
        channel: the readings.
        start_ns: start of the window.
        end_ns: end of the window.
        interval_s: the sampling period asked for.
        config: the limits.
    """
    before_s, after_s = shortfall_s(channel.main_times_ns(), start_ns, end_ns)
    if before_s or after_s:
        return [
            reason(
                "power_not_covered",
                f"The readings of {channel.name} lack {before_s:.2f} s at the start of the window and {after_s:.2f} s "
                "at its end.",
            )
        ]
    found = [
        *gap_reasons(channel, start_ns, end_ns, interval_s, config.max_gap_periods),
        *_stuck(channel, start_ns, end_ns),
        *_counter(channel, start_ns, end_ns, config.counter_tolerance),
        *_averaging(channel, start_ns, end_ns),
        *_throttling(channel, start_ns, end_ns),
    ]
    if channel.reading not in (None, config.power_reading):
        found.append(
            reason(
                "other_reading", f"{channel.name} gives no {config.power_reading} power; {channel.reading} was taken."
            )
        )
    return found


def event_shares(channel: Channel, start_ns: int, end_ns: int) -> dict[str, float] | None:
    """Share of the window's samples with each kind of clocks event; None where they are not logged."""
    bits = channel.event_bits[(channel.event_times_ns >= start_ns) & (channel.event_times_ns <= end_ns)]
    if not len(bits):
        return None
    masks = {"thermal": THERMAL, "power_cap": POWER_CAP, "hardware_slowdown": HARDWARE_SLOWDOWN}
    return {name: float(np.mean((bits & mask) != 0)) for name, mask in masks.items()}


def counter_ratio(channel: Channel, start_ns: int, end_ns: int) -> float | None:
    """Integral of power divided by the counter's difference; None where there are not both."""
    if channel.counted or not channel.covers(start_ns, end_ns):
        return None
    counter_j = channel.counter_energy_j(start_ns, end_ns)
    return channel.energy_j(start_ns, end_ns) / counter_j if counter_j else None


def gap_reasons(channel: Channel, start_ns: int, end_ns: int, interval_s: float, max_periods: float) -> list[Reason]:
    """Whether the readings that span a window have a hole of more than so many sampling periods."""
    times_ns = channel.main_times_ns()
    # The readings just outside count too: a hole may reach across an edge.
    first = max(int(np.searchsorted(times_ns, start_ns, side="right")) - 1, 0)
    last = int(np.searchsorted(times_ns, end_ns, side="left"))
    spacing_s = np.diff(times_ns[first : last + 1]) / 1e9
    if not len(spacing_s):
        return []
    # A slow source is not full of holes: its own usual spacing over the whole log counts where that is longer.
    period_s = max(interval_s, float(np.median(np.diff(times_ns) / 1e9)))
    longest_s = float(spacing_s.max())
    if longest_s <= max_periods * period_s:
        return []
    return [
        reason(
            "gap",
            f"The readings of {channel.name} have a hole of {longest_s:.2f} s; more than {max_periods:g} periods of "
            f"{period_s:.3g} s are not bridged.",
        )
    ]


def _stuck(channel: Channel, start_ns: int, end_ns: int) -> list[Reason]:
    if channel.grade == "modelled":
        return []
    values = channel.counter_j if channel.counted else channel.power_w
    times_ns = channel.main_times_ns()
    inside = values[(times_ns >= start_ns) & (times_ns <= end_ns)]
    empty = int(np.sum((channel.empty_times_ns >= start_ns) & (channel.empty_times_ns <= end_ns)))
    if empty > MAX_EMPTY_SHARE * (empty + len(inside)):
        return [reason("stuck_sensor", f"{empty} of {empty + len(inside)} readings of {channel.name} are empty.")]
    if not channel.counted and np.any(inside < 0):
        return [reason("stuck_sensor", f"{channel.name} gave a negative power.")]
    if len(inside) >= MIN_READINGS_TO_CALL_STUCK and np.all(inside == inside[0]):
        return [
            reason("stuck_sensor", f"All {len(inside)} readings of {channel.name} in the window are {inside[0]:g}.")
        ]
    return []


def _counter(channel: Channel, start_ns: int, end_ns: int, tolerance: float) -> list[Reason]:
    times_ns = channel.counter_times_ns
    if not len(times_ns):
        return []
    inside = channel.counter_j[(times_ns >= start_ns) & (times_ns <= end_ns)]
    if np.any(np.diff(inside) < 0):
        return [reason("counter_reset", f"The energy counter of {channel.name} went backwards in the window.")]
    if channel.counted:
        return []
    counter_j = channel.counter_energy_j(start_ns, end_ns)
    if counter_j is None:
        return [reason("counter_not_checked", f"The energy counter of {channel.name} does not cover the window.")]
    energy_j = channel.energy_j(start_ns, end_ns)
    if counter_j == 0:
        return [
            reason(
                "counter_mismatch",
                f"The energy counter of {channel.name} did not move, but integrated power gives {energy_j:.1f} J.",
            )
        ]
    difference = abs(energy_j - counter_j) / counter_j
    if difference <= tolerance:
        return []
    return [
        reason(
            "counter_mismatch",
            f"Integrated power of {channel.name} gives {energy_j:.1f} J, its energy counter {counter_j:.1f} J: "
            f"{100 * difference:.1f} % apart, more than the {100 * tolerance:g} % allowed.",
        )
    ]


def _averaging(channel: Channel, start_ns: int, end_ns: int) -> list[Reason]:
    """Whether the delay of an averaged reading matters.

    With A(t) the mean of the last second, the integral of A over [a, b] lacks, of the true energy,

        0.5 s (A(b) - A(a))

    exactly so where power is constant in the second before each edge: what A has not shown yet at b, less what it
    still shows at a.
    """
    if channel.source != "nvml" or channel.reading != "average":
        return []
    at_start_w, at_end_w = np.interp([start_ns, end_ns], channel.times_ns, channel.power_w)
    energy_j = channel.energy_j(start_ns, end_ns)
    missing_j = AVERAGE_DELAY_S * float(at_end_w - at_start_w)
    if abs(missing_j) <= MAX_DELAY_EFFECT * energy_j:
        return []
    return [
        reason(
            "averaging_lag",
            f"{channel.name} gives a 1 s average, which trails by half a second: it showed {at_start_w:.0f} W at the "
            f"window's start and {at_end_w:.0f} W at its end, so about {missing_j:+.0f} J are missing of "
            f"{energy_j:.0f} J. A longer window or a larger analysis.trim_start_s makes that less.",
        )
    ]


def _throttling(channel: Channel, start_ns: int, end_ns: int) -> list[Reason]:
    shares = event_shares(channel, start_ns, end_ns)
    if shares is None:
        return []
    sentences = {
        "thermal": ("thermal_throttle", "was slowed down by heat"),
        "power_cap": ("power_cap", "ran at its power limit"),
        "hardware_slowdown": ("hardware_slowdown", "was slowed down by the board"),
    }
    return [
        reason(code, f"{channel.name} {what} in {100 * shares[kind]:.0f} % of the samples.")
        for kind, (code, what) in sentences.items()
        if shares[kind] > 0
    ]
