"""Idle powers: cold (before the server starts), loaded (server up, no request) and post (after it has gone).

Each is the mean power over its phase, of the same channels that are added up for the windows: energy / time. The log's
first and last reading may lie up to `analysis.max_gap_periods` of its periods inside the phase; the mean is then that
of the covered part. Where the sensor averages over a second, half a second at each end is left out. A counter's mean is
that between its first and its last movement within the phase, so that no energy is interpolated across an end. The
readings are checked as those of a window are.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from msgspec import structs

from inference_energy.analysis.figures import blocking, make_figure, reason
from inference_energy.analysis.integration import Values
from inference_energy.analysis.power_series import PowerSeries, boundary, grade
from inference_energy.analysis.sensor_checks import NOTED_HOLE_PERIODS, check_channel, others_reasons, usual_period_s
from inference_energy.analysis.steadiness import MIN_BLOCKS, trend
from inference_energy.analysis.uncertainty.budget import Term, merged, ratio_error, with_budget
from inference_energy.analysis.uncertainty.terms import corrections_of, edge_term, gap_term, scale_terms
from inference_energy.analysis.windows import Window, align_to_readings, bin_edges
from inference_energy.config.analysis import EnergyConfig
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.grades import Grade

IdleKind = Literal["cold", "loaded", "post"]

DRIFT_LIMIT = 0.10
"""Largest difference of post-run and cold idle power, as a share of the cold one, that is not worth a note."""


OUTLIER_MADS = 8.0
"""A second is an outlier when it lies so many median absolute deviations from the median, and `OUTLIER_SHARE` of it."""
OUTLIER_SHARE = 0.05
TREND_LIMIT = 0.05

OWN_TERMS = ("idle fluctuation", "window edges", "holes")
"""Names of the terms that are a phase's alone. Gain and offset it shares with the windows."""


@dataclass(frozen=True)
class IdlePhase:
    """An idle phase as it was recorded: its channels and times, or why there is none, and what the sampler counted."""

    channels: list[PowerSeries]
    times: tuple[int, int] | None
    absent_because: str
    counted: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class IdlePower:
    """An idle power: the figure, each device's part of it in W by channel name, and its own terms of uncertainty.

    `own_terms` hold what is this phase's alone, in W: gain and offset, stated or of a calibration, which it shares with
    the windows, are left out.
    """

    figure: Figure
    by_channel_w: dict[str, float]
    own_terms: tuple[Term, ...]


def idle_power(
    kind: IdleKind, phase: IdlePhase, like: list[PowerSeries], interval_s: float, config: EnergyConfig
) -> IdlePower:
    """Mean power in W of an idle phase, with its interval.

    Args:
        kind: which idle.
        phase: its log; all its channels, also those that are not summed.
        like: the channels summed over the windows; the idle must have all of them.
        interval_s: the sampling period asked for.
        config: limits, and the sensors' uncertainty.
    """
    held = {(c.device, c.domain, c.source): c for c in phase.channels}
    matched = [held.get((c.device, c.domain, c.source)) for c in like]
    problem, found = "", list[Reason]()
    spans: list[tuple[PowerSeries, int, int]] = []
    if phase.times is None:
        problem = phase.absent_because
    elif not like:
        problem = "no power source was logged"
    for wanted, channel in zip(like, matched, strict=True):
        if problem or phase.times is None:
            break
        if channel is None:
            problem = f"{wanted.name} was not logged then"
            break
        inner_ns = _inner(channel, *phase.times)
        start_ns, end_ns = _covered(channel, *inner_ns)
        lost_s = max(start_ns - inner_ns[0], inner_ns[1] - end_ns) / 1e9
        spared_s = config.max_gap_periods * usual_period_s(channel, interval_s) + channel.delay_s
        if end_ns <= start_ns or lost_s > spared_s:
            problem = f"the readings of {channel.name} do not cover the phase"
            break
        found += check_channel(channel, start_ns, end_ns, interval_s, config)
        spans.append((channel, start_ns, end_ns))
    if phase.times is not None:
        found += others_reasons(phase.counted, *phase.times)
    code = f"{kind}_idle_missing"
    reasons = [reason(code, f"No {kind} idle power: {problem}.")] if problem else []
    reasons += [reason(code, f"No {kind} idle power: {fault.detail}") for fault in blocking(found)]
    where: Grade = grade(like)
    if reasons:
        return IdlePower(make_figure(None, "W", boundary=boundary(like), grade=where, reasons=reasons), {}, ())
    powers = {c.name: c.energy_j(a, b) / ((b - a) / 1e9) for c, a, b in spans}
    seconds_w, lengths_s = _seconds(spans)
    notes = [*(note for note in found if note.code in ("holes", "mig_card")), *_oddities(kind, seconds_w)]
    figure = make_figure(sum(powers.values()), "W", boundary=boundary(like), grade=where, notes=notes)
    terms = _own_terms(spans, seconds_w, lengths_s, interval_s)
    if where != "modelled":
        shared = scale_terms(powers, 1.0, corrections_of(c for c, *_ in spans), config.uncertainty)
        figure = with_budget(figure, [*shared, *terms])
    return IdlePower(figure, powers, terms)


def _seconds(spans: list[tuple[PowerSeries, int, int]]) -> tuple[Values, Values]:
    """Power of all channels together over each second [W], and the seconds' lengths [s]."""
    start_ns, end_ns = max(a for _, a, _ in spans), min(b for *_, b in spans)
    edges_ns = bin_edges(start_ns, end_ns)
    lengths_s = np.diff(edges_ns) / 1e9
    energy_j = np.sum([channel.energies_j(edges_ns) for channel, *_ in spans], axis=0)
    return np.asarray(energy_j / lengths_s, dtype=np.float64), np.asarray(lengths_s, dtype=np.float64)


def _own_terms(
    spans: list[tuple[PowerSeries, int, int]], seconds_w: Values, lengths_s: Values, interval_s: float
) -> tuple[Term, ...]:
    found: list[Term] = [
        term.scaled(1e9 / (b - a))
        for c, a, b in spans
        for term in (edge_term(c, a, b), gap_term(c, a, b, NOTED_HOLE_PERIODS * usual_period_s(c, interval_s)))
    ]
    spread = ratio_error(seconds_w * lengths_s, lengths_s)
    if spread is not None:
        found.append(
            Term("idle fluctuation", "A", spread.value, spread.dof, f"block bootstrap, blocks of {spread.block} s")
        )
    return merged(found)


def _oddities(kind: IdleKind, seconds_w: Values) -> list[Reason]:
    """Outliers and trends, as notes."""
    found = []
    median_w = float(np.median(seconds_w))
    away_w = np.abs(seconds_w - median_w)
    limit_w = max(OUTLIER_MADS * float(np.median(away_w)), OUTLIER_SHARE * median_w)
    outliers = np.flatnonzero(away_w > limit_w)
    if len(outliers):
        at = ", ".join(f"{second} s ({seconds_w[second]:.4g} W)" for second in outliers[:3])
        more = f" and {len(outliers) - 3} more" if len(outliers) > 3 else ""
        found.append(
            reason("idle_outliers", f"The {kind} idle has a median of {median_w:.4g} W, but at {at}{more} not.")
        )
    if len(seconds_w) >= MIN_BLOCKS:
        blocks = [float(np.mean(part)) for part in np.array_split(seconds_w, MIN_BLOCKS)]
        change = trend(blocks, TREND_LIMIT, 0.05)
        if change["exceeded"]:
            found.append(
                reason("idle_trend", f"The {kind} idle changed by {100 * change['change_share']:+.0f} % of its mean.")
            )
    return found


def with_drift_note(cold: Figure, post: Figure) -> tuple[Figure, Figure]:
    """The two idle powers, with a note where they differ by more than `DRIFT_LIMIT`."""
    if cold.value is None or post.value is None:
        return cold, post
    drift = abs(post.value - cold.value) / cold.value if cold.value else float(post.value > 0)
    if drift <= DRIFT_LIMIT:
        return cold, post
    note = reason(
        "idle_drift",
        f"Idle power was {cold.value:.4g} W before the run and {post.value:.4g} W after it.",
    )
    return (
        structs.replace(cold, reasons=(*cold.reasons, note)),
        structs.replace(post, reasons=(*post.reasons, note)),
    )


def _inner(channel: PowerSeries, start_ns: int, end_ns: int) -> tuple[int, int]:
    """The phase without its first and last half second where the sensor averages: load may follow it at once."""
    margin_ns = min(round(channel.blur_s * 1e9), (end_ns - start_ns) // 8)
    return start_ns + margin_ns, end_ns - margin_ns


def _covered(channel: PowerSeries, start_ns: int, end_ns: int) -> tuple[int, int]:
    times_ns = channel.main_times_ns()
    if not len(times_ns):
        return start_ns, start_ns
    covered = Window("idle", max(start_ns, int(times_ns[0])), min(end_ns, int(times_ns[-1])))
    if channel.counted:
        covered = align_to_readings(covered, channel.counter_moved_ns)
    return covered.start_ns, covered.end_ns
