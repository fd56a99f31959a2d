"""An energy counter that could no longer be read, as after an error of the driver, beside power readings that go on.

Over a window that the counter does not span, or spans with a hole, the energy is then the integral of the power
readings. As far as the counter goes it still checks them.
"""

from dataclasses import replace

import numpy as np

from inference_energy.analysis.channels import Channel
from inference_energy.analysis.sensor_checks import MIN_CHECKED_S, counter_ratio, gap_reasons, usual_period_s
from inference_energy.analysis.trapezoid import Times, Values, shortfall_s
from inference_energy.analysis.validity import invalidating, reason
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts.figure import Grade, Reason

_NO_TIMES: Times = np.zeros(0, dtype=np.int64)
_NO_VALUES: Values = np.zeros(0)


def without_lost_counters(
    channels: list[Channel], start_ns: int, end_ns: int, interval_s: float, config: AnalysisConfig
) -> tuple[list[Channel], list[Reason]]:
    """The channels as they are to be used over a window, and what there is to say about it.

    A channel whose counter was lost is given without it, and with the grade `sampled` if it had that of a counter.
    Where its power readings do not do either, it is given as it was, and the checks say what is wrong with the counter.
    """
    found, reasons = [], list[Reason]()
    for channel in channels:
        sampled = _sampled(channel)
        lost = channel.counted and not _spans(channel, start_ns, end_ns, interval_s, config)
        if lost and channel.reading is not None and _spans(sampled, start_ns, end_ns, interval_s, config):
            reasons += _reasons(channel, start_ns, end_ns, interval_s, config)
            found.append(sampled)
        else:
            found.append(channel)
    return found, reasons


def _sampled(channel: Channel) -> Channel:
    kept: Grade = channel.grade if channel.grade != "counter" else "sampled"
    return replace(channel, grade=kept, counter_times_ns=_NO_TIMES, counter_j=_NO_VALUES)


def _spans(channel: Channel, start_ns: int, end_ns: int, interval_s: float, config: AnalysisConfig) -> bool:
    """Whether the readings that the energy comes from reach from start to end without a hole that is too long."""
    gaps = gap_reasons(channel, start_ns, end_ns, interval_s, config.max_gap_periods)
    return channel.covers(start_ns, end_ns) and not invalidating(gaps)


def _reasons(channel: Channel, start_ns: int, end_ns: int, interval_s: float, config: AnalysisConfig) -> list[Reason]:
    """What was lost, and whether the readings taken instead agree with the counter as far as it goes."""
    before_s, after_s = shortfall_s(channel.counter_times_ns, start_ns, end_ns)
    lost = [f"the first {before_s:.1f} s"] * (before_s > 0) + [f"the last {after_s:.1f} s"] * (after_s > 0)
    if max(before_s, after_s) >= (end_ns - start_ns) / 1e9:
        where = "in the window"
    else:
        where = f"over {' and '.join(lost)} of the window" if lost else "for a while in the window"
    said = f"The energy counter of {channel.name} could not be read {where}: its power was integrated instead"
    first_ns, last_ns = _longest_stretch(channel, start_ns, end_ns, interval_s, config)
    checked_s = (last_ns - first_ns) / 1e9
    ratio = None
    if channel.reading is not None and checked_s >= MIN_CHECKED_S:
        ratio = counter_ratio(channel, channel.reading, first_ns, last_ns)
    if ratio is None:
        return [reason("counter_lost", f"{said}, and nothing checks that.")]
    apart = f"{100 * abs(ratio - 1):.1f} %"
    if abs(ratio - 1) <= config.counter_tolerance:
        return [reason("counter_lost", f"{said}; over the {checked_s:.0f} s that it was read they are {apart} apart.")]
    return [
        reason(
            "counter_mismatch",
            f"{said}, but over the {checked_s:.0f} s that it was read they are {apart} apart, more than the "
            f"{100 * config.counter_tolerance:g} % allowed.",
        )
    ]


def _longest_stretch(
    channel: Channel, start_ns: int, end_ns: int, interval_s: float, config: AnalysisConfig
) -> tuple[int, int]:
    """First and last reading of the longest part of the window in which the counter was read without a hole."""
    times_ns = channel.counter_times_ns
    inside_ns = times_ns[(times_ns >= start_ns) & (times_ns <= end_ns)]
    if not len(inside_ns):
        return start_ns, start_ns
    longest_ns = config.max_gap_periods * usual_period_s(channel, interval_s) * 1e9
    ends = np.flatnonzero(np.diff(inside_ns) > longest_ns)
    firsts_ns = inside_ns[np.concatenate(([0], ends + 1))]
    lasts_ns = inside_ns[np.concatenate((ends, [len(inside_ns) - 1]))]
    place = int(np.argmax(lasts_ns - firsts_ns))
    return int(firsts_ns[place]), int(lasts_ns[place])
