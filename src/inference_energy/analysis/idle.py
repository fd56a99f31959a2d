"""Idle powers: cold (before the server starts), loaded (server up, no request) and post (after it has stopped).

Each is the mean power over its phase, energy / time, of the same channels that are summed for the windows. The log's
first and last reading may lie up to `analysis.max_gap_periods` of its periods inside the phase; the mean is then that
of the covered part. Where the sensor averages over a second, half a second at each end is left out. A counter's mean is
taken from its first to its last movement within the phase, so that no energy is interpolated across an end. The
readings are checked as those of a window are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from msgspec import structs

from inference_energy.analysis.figures import make_figure
from inference_energy.analysis.integration import Values
from inference_energy.analysis.power_series import PowerSeries, boundary, grade
from inference_energy.analysis.sensor_checks import (
    NOTED_GAP_PERIODS,
    check_channel,
    other_process_reasons,
    usual_period_s,
)
from inference_energy.analysis.steadiness import MIN_BLOCKS, trend
from inference_energy.analysis.uncertainty.budget import Term, merged, ratio_error, with_budget
from inference_energy.analysis.uncertainty.terms import corrections_of, edge_term, gap_term, scale_terms
from inference_energy.analysis.windows import Window, align_to_readings, bin_edges
from inference_energy.config.analysis import EnergyConfig
from inference_energy.contracts.documents.session import PowerLogRecord
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.reason_codes import blocking, reason

IdleKind = Literal["cold", "loaded", "post"]

DRIFT_LIMIT = 0.10
"""Largest difference of post-run and cold idle power, as a share of the cold one, without a note."""

OUTLIER_MADS = 8.0
"""A second is an outlier where it is this many median absolute deviations, and `OUTLIER_SHARE`, off the median."""
OUTLIER_SHARE = 0.05
TREND_LIMIT = 0.05

PHASE_TERMS = ("idle fluctuation", "window edges", "holes")
"""Names of the terms that a phase does not share with the windows, as it does gain and offset."""


@dataclass(frozen=True)
class IdlePhase:
    """An idle phase as it was recorded.

    Attributes:
        channels: all its channels, also those that are not summed.
        times_ns: its start and end; None where there was none.
        missing_reason: why there was none.
        sampler_record: what the sampler counted.
    """

    channels: Sequence[PowerSeries]
    times_ns: tuple[int, int] | None
    missing_reason: str
    sampler_record: PowerLogRecord | None = None


_KEPT_NOTES = ("holes", "mig_card", "readings_withheld", "counter_left_out")
"""Notes of the checks that matter to an idle power; the others are on the windows."""


@dataclass(frozen=True)
class IdlePower:
    """An idle power.

    Attributes:
        figure: the power, with its interval.
        by_channel_w: each channel's part of it, by name.
        phase_terms: the terms of its uncertainty that it does not share with the windows [W]: gain and offset, stated
            or of a calibration, are left out.
    """

    figure: Figure
    by_channel_w: dict[str, float]
    phase_terms: tuple[Term, ...]


@dataclass(frozen=True)
class _Span:
    """A channel, and the part of the phase that its mean is taken over."""

    channel: PowerSeries
    start_ns: int
    end_ns: int

    @property
    def mean_w(self) -> float:
        return self.channel.energy_j(self.start_ns, self.end_ns) / ((self.end_ns - self.start_ns) / 1e9)


def idle_power(
    kind: IdleKind, phase: IdlePhase, summed_channels: Sequence[PowerSeries], interval_s: float, config: EnergyConfig
) -> IdlePower:
    """Return the mean power of an idle phase, with its interval.

    Args:
        kind: which idle.
        phase: its log.
        summed_channels: the channels summed over the windows; the idle must have all of them.
        interval_s: the sampling period that was asked for.
        config: limits, and what is stated of the sensors.
    """
    where, source_grade = boundary(summed_channels), grade(summed_channels)
    spans, problem = _spans(phase, summed_channels, interval_s, config)
    checks = [
        why for span in spans for why in check_channel(span.channel, span.start_ns, span.end_ns, interval_s, config)
    ]
    if phase.times_ns is not None:
        checks += other_process_reasons(phase.sampler_record, *phase.times_ns)
    code = f"{kind}_idle_missing"
    reasons = [reason(code, f"No {kind} idle power: {problem}.")] if problem else []
    reasons += [reason(code, f"No {kind} idle power: {fault.detail}") for fault in blocking(checks)]
    if reasons:
        return IdlePower(make_figure(None, "W", boundary=where, grade=source_grade, reasons=reasons), {}, ())
    powers_w = {span.channel.name: span.mean_w for span in spans}
    seconds_w, lengths_s = _seconds(spans)
    notes = [*(note for note in checks if note.code in _KEPT_NOTES), *_oddities(kind, seconds_w)]
    figure = make_figure(sum(powers_w.values()), "W", boundary=where, grade=source_grade, notes=notes)
    terms = _phase_terms(spans, seconds_w, lengths_s, interval_s)
    if source_grade != "modelled":
        shared = scale_terms(powers_w, 1.0, corrections_of(span.channel for span in spans), config.uncertainty)
        figure = with_budget(figure, [*shared, *terms])
    return IdlePower(figure, powers_w, terms)


def with_drift_note(cold: Figure, post: Figure) -> tuple[Figure, Figure]:
    """Return cold and post-run idle power, with a note where they differ by more than `DRIFT_LIMIT`."""
    if cold.value is None or post.value is None:
        return cold, post
    drift = abs(post.value - cold.value) / cold.value if cold.value else float(post.value > 0)
    if drift <= DRIFT_LIMIT:
        return cold, post
    note = reason("idle_drift", f"Idle power was {cold.value:.4g} W before the run and {post.value:.4g} W after it.")
    return (
        structs.replace(cold, reasons=(*cold.reasons, note)),
        structs.replace(post, reasons=(*post.reasons, note)),
    )


def _spans(
    phase: IdlePhase, summed_channels: Sequence[PowerSeries], interval_s: float, config: EnergyConfig
) -> tuple[list[_Span], str]:
    """Return the part of the phase that each summed channel covers, up to the first problem, and that problem."""
    if phase.times_ns is None:
        return [], phase.missing_reason
    if not summed_channels:
        return [], "no power source was logged"
    logged = {channel.key: channel for channel in phase.channels}
    spans: list[_Span] = []
    for summed_channel in summed_channels:
        channel = logged.get(summed_channel.key)
        if channel is None:
            return spans, f"{summed_channel.name} was not logged then"
        inner_ns = _inner(channel, *phase.times_ns)
        start_ns, end_ns = _covered(channel, *inner_ns)
        lost_s = max(start_ns - inner_ns[0], inner_ns[1] - end_ns) / 1e9
        allowed_s = config.max_gap_periods * usual_period_s(channel, interval_s) + channel.reading_delay_s
        if end_ns <= start_ns or lost_s > allowed_s:
            return spans, f"the readings of {channel.name} do not cover the phase"
        spans.append(_Span(channel, start_ns, end_ns))
    return spans, ""


def _inner(channel: PowerSeries, start_ns: int, end_ns: int) -> tuple[int, int]:
    """Return the phase without half the averaging time at each end: load may follow it at once."""
    margin_ns = min(round(channel.half_averaging_time_s * 1e9), (end_ns - start_ns) // 8)
    return start_ns + margin_ns, end_ns - margin_ns


def _covered(channel: PowerSeries, start_ns: int, end_ns: int) -> tuple[int, int]:
    times_ns = channel.energy_times_ns
    if not len(times_ns):
        return start_ns, start_ns
    covered = Window("idle", max(start_ns, int(times_ns[0])), min(end_ns, int(times_ns[-1])))
    if channel.uses_counter:
        covered = align_to_readings(covered, channel.counter_moved_ns)
    return covered.start_ns, covered.end_ns


def _seconds(spans: Sequence[_Span]) -> tuple[Values, Values]:
    """Return the power of all channels together over each second [W], and the lengths of the seconds [s]."""
    start_ns, end_ns = max(span.start_ns for span in spans), min(span.end_ns for span in spans)
    edges_ns = bin_edges(start_ns, end_ns)
    lengths_s = np.diff(edges_ns) / 1e9
    energy_j = np.sum([span.channel.energies_j(edges_ns) for span in spans], axis=0)
    return np.asarray(energy_j / lengths_s, dtype=np.float64), np.asarray(lengths_s, dtype=np.float64)


def _phase_terms(spans: Sequence[_Span], seconds_w: Values, lengths_s: Values, interval_s: float) -> tuple[Term, ...]:
    terms: list[Term] = []
    for span in spans:
        channel, start_ns, end_ns = span.channel, span.start_ns, span.end_ns
        longest_s = NOTED_GAP_PERIODS * usual_period_s(channel, interval_s)
        for term in (edge_term(channel, start_ns, end_ns), gap_term(channel, start_ns, end_ns, longest_s)):
            terms.append(term.scaled(1e9 / (end_ns - start_ns)))
    error = ratio_error(seconds_w * lengths_s, lengths_s)
    if error is not None:
        basis = f"block bootstrap, blocks of {error.block} s"
        terms.append(Term("idle fluctuation", "A", error.value, error.dof, basis))
    return merged(terms)


def _oddities(kind: IdleKind, seconds_w: Values) -> list[Reason]:
    """Return notes on outliers and trends."""
    notes = []
    median_w = float(np.median(seconds_w))
    away_w = np.abs(seconds_w - median_w)
    limit_w = max(OUTLIER_MADS * float(np.median(away_w)), OUTLIER_SHARE * median_w)
    outliers = np.flatnonzero(away_w > limit_w)
    if len(outliers):
        at = ", ".join(f"{second} s ({seconds_w[second]:.4g} W)" for second in outliers[:3])
        more = f" and {len(outliers) - 3} more" if len(outliers) > 3 else ""
        notes.append(
            reason("idle_outliers", f"The {kind} idle has a median of {median_w:.4g} W, but at {at}{more} not.")
        )
    if len(seconds_w) >= MIN_BLOCKS:
        blocks = [float(np.mean(part)) for part in np.array_split(seconds_w, MIN_BLOCKS)]
        change = trend(blocks, TREND_LIMIT, 0.05)
        if change.exceeded:
            notes.append(
                reason("idle_trend", f"The {kind} idle changed by {100 * change.change_share:+.0f} % of its mean.")
            )
    return notes
