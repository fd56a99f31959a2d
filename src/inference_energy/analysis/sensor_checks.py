"""Checks of a channel's readings over a window: gaps, frozen readings, counters, throttling, other users.

An energy counter that could not be read over the whole window, as after an error of the driver, is replaced by the
integral of the power readings beside it; as far as the counter goes it still checks them.

The sampler looks once a second which processes compute on a GPU, so other users of it are noticed. A partitioned GPU
(MIG) shows only the power of the whole card, so users of its other instances count like any other.
"""

from dataclasses import replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from inference_energy.analysis.implausible_readings import break_reasons, withheld_reasons
from inference_energy.analysis.integration import Times, Values, shortfall_s
from inference_energy.analysis.power_series import PowerKind, PowerSeries
from inference_energy.config.analysis import EnergyConfig, GapLimit
from inference_energy.contracts.documents.session import PowerLogRecord
from inference_energy.contracts.figure import Reason
from inference_energy.contracts.grades import Grade
from inference_energy.contracts.power import MIG, channel_facts
from inference_energy.contracts.reason_codes import blocking, reason

POWER_CAP = 0x4
HARDWARE_SLOWDOWN = 0x8 | 0x80
THERMAL = 0x20 | 0x40
"""Bits of NVML's clocks event reasons: SwPowerCap; HwSlowdown, HwPowerBrakeSlowdown; Sw- and HwThermalSlowdown."""

EVENTS = {
    "gpu_idle": 0x1,
    "application_clocks": 0x2,
    "power_cap": POWER_CAP,
    "hardware_slowdown": HARDWARE_SLOWDOWN,
    "thermal": THERMAL,
}
"""Events that are given as a share of time. GpuIdle and ApplicationsClocksSetting do not affect a figure."""

STUCK_READINGS = 20
STUCK_S = 3.0
"""`STUCK_READINGS` equal readings in a row over `STUCK_S` are not a steady load but a frozen sensor: a board's power is
given in mW and flickers by more than that within a second."""

FINE_SOURCES = ("nvml", "nvidia-smi", "rapl", "pcm-power")
"""Sources that give mW, or a counter that never rests."""

COARSE_STUCK_S = 60.0
"""Other sources, such as meters and logs of other tools, give whole or tenth watts, or few readings, and may repeat a
value for this long."""

MIN_CHECKED_S = 5.0
"""Shortest part of a window over which a counter is compared with power: the edges of shorter parts alone are off by
some percent."""

MAX_EMPTY_SHARE = 0.05
NOTED_GAP_PERIODS = 3.0

Indices = NDArray[np.intp]
Spans = list[tuple[int, int]]
Frozen = dict[PowerKind, Spans]
"""Parts of a window in which a power reading stood still, from its last movement to its next, in order of time."""

_NONE: Indices = np.zeros(0, dtype=np.intp)
_NO_TIMES: Times = np.zeros(0, dtype=np.int64)
_NO_VALUES: Values = np.zeros(0)

PROCESS_CHECK_PERIOD_NS = 1_000_000_000
"""Period of the sampler's check for processes on a GPU."""


def check_channel(
    channel: PowerSeries, start_ns: int, end_ns: int, interval_s: float, config: EnergyConfig
) -> list[Reason]:
    """Return the reasons of a channel over a window, blocking ones and notes.

    Args:
        channel: the readings.
        start_ns: start of the window.
        end_ns: end of the window.
        interval_s: the configured sampling period.
        config: the limits.
    """
    withheld = withheld_reasons(channel, start_ns, end_ns)
    before_s, after_s = shortfall_s(channel.energy_times_ns, start_ns, end_ns)
    if before_s or after_s:
        return [
            *blocking(withheld),
            reason(
                "power_not_covered",
                f"The readings of {channel.name} lack {before_s:.2f} s at the start of the window and {after_s:.2f} s "
                "at its end.",
            ),
        ]
    stuck = _stuck(channel, start_ns, end_ns)
    frozen: Frozen = {} if stuck else _frozen_beside_counter(channel, start_ns, end_ns)
    reasons = [
        *withheld,
        *gap_reasons(channel, start_ns, end_ns, interval_s, config.max_gap_periods),
        *stuck,
        *_cross_check_stuck(channel, frozen),
        *_counter(channel, start_ns, end_ns, config.counter_tolerance, frozen),
        *_throttling(channel, start_ns, end_ns),
    ]
    if not channel.uses_counter and channel.reading != config.power_reading:
        reasons.append(
            reason(
                "other_reading", f"{channel.name} gives no {config.power_reading} power; {channel.reading} was taken."
            )
        )
    if channel.averaging_s is None and channel.reading == "average":
        roughly = "its integral checks the counter only roughly"
        use = roughly if channel.uses_counter else "the window's edges are blurred"
        reasons.append(
            reason("averaging_unknown", f"What the power of {channel.name} averages over is not known, so {use}.")
        )
    return reasons


def event_shares(channel: PowerSeries, start_ns: int, end_ns: int) -> dict[str, float] | None:
    """Return the share of the window's samples with each kind of clocks event; None where they are not logged."""
    bits = channel.event_bits[(channel.event_times_ns >= start_ns) & (channel.event_times_ns <= end_ns)]
    if not len(bits):
        return None
    return {name: float(np.mean((bits & mask) != 0)) for name, mask in EVENTS.items()}


def counter_ratio(channel: PowerSeries, reading: PowerKind, start_ns: int, end_ns: int) -> float | None:
    """Return the integral of a power reading over the rise of the counter; None where either is missing."""
    integral_j = channel.integral_j(reading, start_ns, end_ns)
    counter_j = channel.counter_energy_j(start_ns, end_ns)
    return integral_j / counter_j if integral_j is not None and counter_j and counter_j > 0 else None


def usual_period_s(channel: PowerSeries, interval_s: float) -> float:
    """Return a channel's period: the configured one, or the median spacing of its readings where that is longer."""
    times_ns = channel.energy_times_ns
    return max(interval_s, float(np.median(np.diff(times_ns) / 1e9))) if len(times_ns) > 1 else interval_s


def gap_reasons(
    channel: PowerSeries, start_ns: int, end_ns: int, interval_s: float, max_periods: float
) -> list[Reason]:
    """Return a reason where the readings that span a window have a gap of more than `max_periods` sampling periods."""
    times_ns = channel.energy_times_ns
    # The readings just outside count too: a gap may reach across an edge.
    first = max(int(np.searchsorted(times_ns, start_ns, side="right")) - 1, 0)
    last = int(np.searchsorted(times_ns, end_ns, side="left"))
    spacing_s = np.diff(times_ns[first : last + 1]) / 1e9
    if not len(spacing_s):
        return []
    period_s = usual_period_s(channel, interval_s)
    longest_s = float(spacing_s.max())
    if longest_s > max_periods * period_s:
        return [
            reason(
                "gap",
                f"The readings of {channel.name} have a hole of {longest_s:.2f} s; more than {max_periods:g} periods "
                f"of {period_s:.3g} s are not bridged.",
            )
        ]
    gaps = int(np.sum(spacing_s > NOTED_GAP_PERIODS * period_s))
    if not gaps or channel.uses_counter:
        return []
    return [
        reason(
            "holes",
            f"The readings of {channel.name} have {gaps} hole(s) of more than {NOTED_GAP_PERIODS:g} periods of "
            f"{period_s:.3g} s, the longest {longest_s:.2f} s.",
        )
    ]


def without_lost_counters(
    channels: list[PowerSeries], start_ns: int, end_ns: int, interval_s: float, config: GapLimit
) -> list[PowerSeries]:
    """Return the channels to use over a window, without the counters that were lost in it.

    A channel whose counter was lost is returned without it, and with the grade `sampled` instead of `counter`.
    Where its power readings do not span the window either, it is returned unchanged, and the checks report the counter.
    """
    usable = []
    for channel in channels:
        sampled = _sampled(channel)
        is_lost = channel.uses_counter and not _spans(channel, start_ns, end_ns, interval_s, config)
        if is_lost and channel.reading is not None and _spans(sampled, start_ns, end_ns, interval_s, config):
            usable.append(sampled)
        else:
            usable.append(channel)
    return usable


def lost_counter_reasons(
    channels: list[PowerSeries],
    usable: list[PowerSeries],
    start_ns: int,
    end_ns: int,
    interval_s: float,
    config: EnergyConfig,
) -> list[Reason]:
    """Return a reason for each channel that `without_lost_counters` replaced: `usable` is what it returned."""
    return [
        cause
        for channel, used in zip(channels, usable, strict=True)
        if used is not channel
        for cause in _loss_reasons(channel, start_ns, end_ns, interval_s, config)
    ]


def other_process_reasons(record: PowerLogRecord | None, start_ns: int, end_ns: int) -> list[Reason]:
    """Return reasons for other processes on the GPUs in a stretch of time, by the sampler's counts.

    Args:
        record: the sampler's record of processes; None if there is none.
        start_ns: start of the stretch.
        end_ns: its end; a process seen within a second of either edge counts, since the sampler looks once a second.
    """
    if record is None:
        return []
    reasons = _partition_notes(record)
    channels = record.channels or []
    for code, processes in (
        ("foreign_process", [(channel.device, channel.foreign_processes) for channel in channels]),
        ("unidentified_process", [(channel.device, channel.unidentified_processes) for channel in channels]),
    ):
        for device, seen in processes:
            names = [
                f"{process.name or 'a process'} (pid {process.pid})"
                for process in seen or []
                if process.first_seen_ns <= end_ns + PROCESS_CHECK_PERIOD_NS
                and process.last_seen_ns >= start_ns - PROCESS_CHECK_PERIOD_NS
            ]
            if names:
                reasons.append(reason(code, f"On {device} there was also {', '.join(names)}."))
    return reasons


def _stuck(channel: PowerSeries, start_ns: int, end_ns: int) -> list[Reason]:
    if channel.grade == "modelled":
        return []
    times_ns, values = channel.energy_times_ns, channel.counter_j if channel.uses_counter else channel.power_w
    readings = values[(times_ns >= start_ns) & (times_ns <= end_ns)]
    empty = int(np.sum((channel.empty_times_ns >= start_ns) & (channel.empty_times_ns <= end_ns)))
    if empty > MAX_EMPTY_SHARE * (empty + len(readings)):
        return [reason("stuck_sensor", f"{empty} of {empty + len(readings)} readings of {channel.name} are empty.")]
    subject = "The energy counter" if channel.uses_counter else "The power"
    if not channel.uses_counter and np.any(readings <= 0):
        return [reason("stuck_sensor", f"{channel.name} gave a power of zero or less.")]
    count, longest_s = _longest_run(times_ns, values, start_ns, end_ns)
    limit_s = _repeat_limit_s(channel)
    if longest_s < limit_s or (not channel.uses_counter and count < STUCK_READINGS):
        return []
    return [reason("stuck_sensor", f"{subject} of {channel.name} did not change for {longest_s:.1f} s.")]


def _repeat_limit_s(channel: PowerSeries) -> float:
    """Return how long a channel may repeat a value [s]; a log may have several sources, as in `nvml+rapl`."""
    return STUCK_S if all(source in FINE_SOURCES for source in channel.source.split("+")) else COARSE_STUCK_S


def _longest_run(times_ns: Times, values: Values, start_ns: int, end_ns: int) -> tuple[int, float]:
    """Return the readings in the longest run of equal values that reaches into the window, and its length [s]."""
    firsts, lasts = _runs(times_ns, values, start_ns, end_ns)
    if not len(firsts):
        return 0, 0.0
    lengths_s = (times_ns[lasts] - times_ns[firsts]) / 1e9
    longest = int(np.argmax(lengths_s))
    return int(lasts[longest] - firsts[longest] + 1), float(lengths_s[longest])


def _runs(times_ns: Times, values: Values, start_ns: int, end_ns: int) -> tuple[Indices, Indices]:
    """Return the index of the first and last reading of each run of equal values that reaches into the window.

    Readings outside count too: a counter that stood still before the window moves the energy from before into it.
    """
    if len(values) < 2:
        return _NONE, _NONE
    changes = np.flatnonzero(np.diff(values) != 0)
    firsts = np.concatenate(([0], changes + 1))
    lasts = np.concatenate((changes, [len(values) - 1]))
    inside = (times_ns[lasts] >= start_ns) & (times_ns[firsts] <= end_ns)
    return firsts[inside], lasts[inside]


def _frozen_beside_counter(channel: PowerSeries, start_ns: int, end_ns: int) -> Frozen:
    """Return the parts of the window in which a power reading beside a counter stood still for too long."""
    frozen: Frozen = {}
    if not channel.uses_counter or channel.grade == "modelled":
        return frozen
    limit_ns = 1e9 * _repeat_limit_s(channel)
    for name in get_args(PowerKind):
        times_ns, power_w = channel.power_of(name)
        firsts, lasts = _runs(times_ns, power_w, start_ns, end_ns)
        long = (times_ns[lasts] - times_ns[firsts] >= limit_ns) & (lasts - firsts + 1 >= STUCK_READINGS)
        nexts = np.minimum(lasts[long] + 1, len(times_ns) - 1)
        if long.any():
            frozen[name] = [
                (max(start_ns, int(times_ns[first])), min(end_ns, int(times_ns[after])))
                for first, after in zip(firsts[long], nexts, strict=True)
            ]
    return frozen


def _cross_check_stuck(channel: PowerSeries, frozen: Frozen) -> list[Reason]:
    """Return notes on power readings that stood still beside a counter, which the energy does not depend on."""
    return [
        reason(
            "cross_check_stuck",
            f"The {name} power of {channel.name} did not change for {_length_s(spans):.1f} s of the window and checks "
            "nothing there.",
        )
        for name, spans in frozen.items()
    ]


def _counter(channel: PowerSeries, start_ns: int, end_ns: int, tolerance: float, frozen: Frozen) -> list[Reason]:
    times_ns = channel.counter_times_ns
    if not len(times_ns):
        return []
    # The readings just outside count too, for the edges are interpolated from them.
    first = max(int(np.searchsorted(times_ns, start_ns, side="right")) - 1, 0)
    last = int(np.searchsorted(times_ns, end_ns, side="left"))
    if breaks := break_reasons(channel, start_ns, end_ns):
        return breaks
    if np.any(np.diff(channel.counter_j[first : last + 1]) < 0):
        return [reason("counter_reset", f"The energy counter of {channel.name} went backwards.")]
    counter_j = channel.counter_energy_j(start_ns, end_ns)
    if counter_j is None:
        return [reason("counter_not_checked", f"The energy counter of {channel.name} does not cover the window.")]
    integral_j = None if channel.reading is None else channel.integral_j(channel.reading, start_ns, end_ns)
    if counter_j <= 0:
        gives = "" if integral_j is None else f", but integrated power gives {integral_j:.1f} J"
        return [reason("counter_mismatch", f"The energy counter of {channel.name} did not move{gives}.")]
    if integral_j is None or channel.reading is None:
        # Other counters have no independent power: RAPL's is derived from the counter.
        if not (channel.uses_counter and channel.domain == "gpu"):
            return []
        return [reason("counter_alone", f"No power readings of {channel.name} cover the window and check its counter.")]
    part = ""
    if channel.reading in frozen:
        # Frozen readings do not check the counter; the rest of the window does, if it is long enough.
        moving = _between(frozen[channel.reading], start_ns, end_ns)
        moving_s = _length_s(moving)
        if moving_s < MIN_CHECKED_S:
            return []
        integral_j = sum(channel.integral_j(channel.reading, a, b) or 0.0 for a, b in moving)
        counter_j = sum(channel.counter_energy_j(a, b) or 0.0 for a, b in moving)
        part = f" in the {moving_s:.0f} s in which its power moved"
    # A counter that moves seldom may lack one step at each edge.
    steps = 0.0 if channel.uses_counter else 2 * channel.counter_period_s / ((end_ns - start_ns) / 1e9)
    if abs(integral_j - counter_j) <= (tolerance + steps) * counter_j:
        return []
    apart = f"{100 * abs(integral_j / counter_j - 1):.1f} % apart, " if counter_j else ""
    return [
        reason(
            "counter_mismatch",
            f"Integrated power of {channel.name} gives {integral_j:.1f} J{part}, its energy counter {counter_j:.1f} "
            f"J: {apart}more than the {100 * tolerance:g} % allowed.",
        )
    ]


def _length_s(spans: Spans) -> float:
    return sum(end_ns - start_ns for start_ns, end_ns in spans) / 1e9


def _between(spans: Spans, start_ns: int, end_ns: int) -> Spans:
    """Return the rest of the window without these spans, which are in order."""
    edges_ns = [start_ns, *(edge for span in spans for edge in span), end_ns]
    return [(a, b) for a, b in zip(edges_ns[::2], edges_ns[1::2], strict=True) if b > a]


def _throttling(channel: PowerSeries, start_ns: int, end_ns: int) -> list[Reason]:
    shares = event_shares(channel, start_ns, end_ns)
    if shares is None:
        return []
    sentences = {
        "thermal": ("thermal_throttle", "was slowed down by heat"),
        "power_cap": ("power_cap", "ran at its power limit"),
        "hardware_slowdown": ("hardware_slowdown", "was slowed down by the board"),
    }
    return [
        reason(code, f"{channel.name} {effect} in {100 * shares[kind]:.0f} % of the samples.")
        for kind, (code, effect) in sentences.items()
        if shares[kind] > 0
    ]


def _sampled(channel: PowerSeries) -> PowerSeries:
    kept: Grade = channel.grade if channel.grade != "counter" else "sampled"
    return replace(channel, grade=kept, counter_times_ns=_NO_TIMES, counter_j=_NO_VALUES)


def _spans(channel: PowerSeries, start_ns: int, end_ns: int, interval_s: float, config: GapLimit) -> bool:
    """Return whether the readings that the energy comes from span the window without a gap that is too long."""
    gaps = gap_reasons(channel, start_ns, end_ns, interval_s, config.max_gap_periods)
    return channel.spans(start_ns, end_ns) and not blocking(gaps)


def _loss_reasons(
    channel: PowerSeries, start_ns: int, end_ns: int, interval_s: float, config: EnergyConfig
) -> list[Reason]:
    """Return the reason for a lost counter: a note, or blocking where the power readings disagree with its readings."""
    before_s, after_s = shortfall_s(channel.counter_times_ns, start_ns, end_ns)
    lost = [f"the first {before_s:.1f} s"] * (before_s > 0) + [f"the last {after_s:.1f} s"] * (after_s > 0)
    if max(before_s, after_s) >= (end_ns - start_ns) / 1e9:
        part = "in the window"
    else:
        part = f"over {' and '.join(lost)} of the window" if lost else "for a while in the window"
    sentence = f"The energy counter of {channel.name} could not be read {part}: its power was integrated instead"
    first_ns, last_ns = _longest_stretch(channel, start_ns, end_ns, interval_s, config)
    checked_s = (last_ns - first_ns) / 1e9
    ratio = None
    if channel.reading is not None and checked_s >= MIN_CHECKED_S:
        ratio = counter_ratio(channel, channel.reading, first_ns, last_ns)
    if ratio is None:
        return [reason("counter_lost", f"{sentence}, and nothing checks that.")]
    apart = f"{100 * abs(ratio - 1):.1f} %"
    if abs(ratio - 1) <= config.counter_tolerance:
        return [
            reason("counter_lost", f"{sentence}; over the {checked_s:.0f} s that it was read they are {apart} apart.")
        ]
    return [
        reason(
            "counter_mismatch",
            f"{sentence}, but over the {checked_s:.0f} s that it was read they are {apart} apart, more than the "
            f"{100 * config.counter_tolerance:g} % allowed.",
        )
    ]


def _longest_stretch(
    channel: PowerSeries, start_ns: int, end_ns: int, interval_s: float, config: GapLimit
) -> tuple[int, int]:
    """Return the first and last reading of the longest part in which the counter was read without a gap."""
    times_ns = channel.counter_times_ns
    inside_ns = times_ns[(times_ns >= start_ns) & (times_ns <= end_ns)]
    if not len(inside_ns):
        return start_ns, start_ns
    longest_ns = config.max_gap_periods * usual_period_s(channel, interval_s) * 1e9
    ends = np.flatnonzero(np.diff(inside_ns) > longest_ns)
    firsts_ns = inside_ns[np.concatenate(([0], ends + 1))]
    lasts_ns = inside_ns[np.concatenate((ends, [len(inside_ns) - 1]))]
    longest = int(np.argmax(lasts_ns - firsts_ns))
    return int(firsts_ns[longest]), int(lasts_ns[longest])


def _partition_notes(record: PowerLogRecord) -> list[Reason]:
    """Return a note for each partitioned GPU: its power is the whole card's, shared by the instances known."""
    cards = {
        device: facts[MIG]
        for (_, device, domain), facts in channel_facts(record.sources).items()
        if domain == "gpu" and MIG in facts
    }
    notes = []
    for device, card in cards.items():
        instances = card["instances"]
        shared = ", ".join(str(instance["profile"]) for instance in instances) or "none that can be seen from here"
        share = f"the job was given {', '.join(card['used'])}" if card["used"] else "which the job used is not known"
        unlisted = [
            channel.unlisted_instances
            for channel in record.channels or []
            if channel.device == device and channel.unlisted_instances is not None
        ]
        unseen = sorted({uuid for uuids in unlisted for uuid in uuids})
        unseen_note = ""
        if unseen:
            unseen_note = f" Whether others computed on {', '.join(unseen)} cannot be told."
        elif not unlisted or not instances:
            unseen_note = " Whether others computed on it cannot be told."
        notes.append(
            reason(
                "mig_card",
                f"{device} is partitioned (MIG): the energy is that of the whole card, shared by {len(instances)} "
                f"instance(s) ({shared}); {share}.{unseen_note}",
            )
        )
    return notes
