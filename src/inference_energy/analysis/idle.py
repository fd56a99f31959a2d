"""Idle powers: cold (before the server starts), loaded (server up, no request) and post (after it has gone).

Each is the mean power over its phase, of the same channels that are added up for the windows: energy / time. The log's
first and last reading may lie up to `analysis.max_gap_periods` sampling periods inside the phase; the mean is then that
of the covered part.
"""

from dataclasses import dataclass
from typing import Literal

from inference_energy.analysis.channels import Channel, boundary, grade
from inference_energy.analysis.validity import judged, reason
from inference_energy.contracts.figure import Figure, Grade

IdleKind = Literal["cold", "loaded", "post"]

DRIFT_LIMIT = 0.10
"""Largest difference of post-run and cold idle power, as a share of the cold one, that is not worth a note."""


@dataclass(frozen=True)
class IdlePhase:
    """An idle phase as it was recorded: its channels and times, or why there is none."""

    channels: list[Channel]
    times: tuple[int, int] | None
    absent_because: str


def idle_power(kind: IdleKind, phase: IdlePhase, like: list[Channel], slack_s: float) -> Figure:
    """Mean power in W of an idle phase.

    Args:
        kind: which idle.
        phase: its log; all its channels, also those that are not summed.
        like: the channels summed over the windows; the idle must have all of them.
        slack_s: how much of the phase may lie outside the log, at each end.
    """
    held = {(c.device, c.domain, c.source): c for c in phase.channels}
    matched = [held.get((c.device, c.domain, c.source)) for c in like]
    code = f"{kind}_idle_missing"
    problem = ""
    power_w = 0.0
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
        start_ns, end_ns = _covered(channel, *phase.times)
        lost_s = max(start_ns - phase.times[0], phase.times[1] - end_ns) / 1e9
        if end_ns <= start_ns or lost_s > slack_s:
            problem = f"the readings of {channel.name} do not cover the phase"
            break
        power_w += channel.energy_j(start_ns, end_ns) / ((end_ns - start_ns) / 1e9)
    reasons = [reason(code, f"No {kind} idle power: {problem}.")] if problem else []
    where: Grade = grade(like)
    return judged(power_w, "W", boundary=boundary(like), grade=where, reasons=reasons)


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
    noted = [
        judged(f.value, f.unit, boundary=f.boundary, grade=f.grade, basis=f.basis, notes=(*f.reasons, note))
        for f in (cold, post)
    ]
    return noted[0], noted[1]


def _covered(channel: Channel, start_ns: int, end_ns: int) -> tuple[int, int]:
    times_ns = channel.main_times_ns()
    if not len(times_ns):
        return start_ns, start_ns
    return max(start_ns, int(times_ns[0])), min(end_ns, int(times_ns[-1]))
