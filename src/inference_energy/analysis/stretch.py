"""The energy of a power log between two times, checked and with its interval: what `log-power` and `analyze` print.

There is no pipeline around such a log, so nothing is known of steadiness and of other processes. What the readings
themselves show is checked as in a session's window.
"""

from collections.abc import Sequence

from inference_energy.analysis.channels import Channel, boundary, grade
from inference_energy.analysis.counter_loss import without_lost_counters
from inference_energy.analysis.figures import times
from inference_energy.analysis.sensor_checks import check_channel, usual_period_s
from inference_energy.analysis.trapezoid import shortfall_s
from inference_energy.analysis.uncertainty.budget import merged, with_budget
from inference_energy.analysis.uncertainty.scale import corrections_of, scale_terms
from inference_energy.analysis.uncertainty.window import reading_terms
from inference_energy.analysis.validity import invalidating, judged, reason
from inference_energy.analysis.windows import Window, snapped
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts.figure import Figure, Reason


def energy_between(
    logged: Sequence[Channel], start_ns: int, end_ns: int, config: AnalysisConfig, *, inside: str | None = None
) -> Figure:
    """Energy in J of some channels between two times; without a value where a check of the readings says so.

    Args:
        logged: the channels that add up.
        start_ns: start of the stretch.
        end_ns: its end.
        config: the limits, and what is stated of the sensors.
        inside: what the channels contain; None: what they say themselves.
    """
    power, reasons = without_lost_counters(list(logged), start_ns, end_ns, 0.0, config)
    if not power:
        reasons.append(reason("no_power_source", "No channel that can be added up was logged."))
    for channel in power:
        reasons += check_channel(channel, start_ns, end_ns, 0.0, config)
    energies_j = {}
    if not invalidating(reasons):
        energies_j = {channel.name: channel.energy_j(start_ns, end_ns) for channel in power}
    total = judged(
        sum(energies_j.values()) if energies_j else None,
        "J",
        boundary=boundary(power) if inside is None else inside,
        grade=grade(power),
        basis="total",
        reasons=reasons,
    )
    if total.value is None or total.grade == "modelled":
        return total
    terms = scale_terms(energies_j, (end_ns - start_ns) / 1e9, corrections_of(power), config.uncertainty)
    return with_budget(total, merged([*terms, *reading_terms(power, (start_ns, end_ns), 0.0)]))


def whole_log(logged: Sequence[Channel], config: AnalysisConfig) -> dict[str, Figure]:
    """`duration_s`, `energy_total_j` and `power_mean_w` over all the time of a log that its readings cover together.

    A channel that begins late or ends early, by more than holes may be long, gives no energy: what the others read
    meanwhile is not all that was used.

    Args:
        logged: the channels that add up.
        config: the limits.
    """
    known = [channel for channel in logged if len(channel.main_times_ns()) > 1]
    silent = [channel.name for channel in logged if len(channel.main_times_ns()) < 2]
    if not known or silent:
        what = f"There are fewer than two readings of {', '.join(silent)}." if silent else "There is no power in it."
        return _figures(_missing(logged, reason("no_power_source", what)), 0.0)
    firsts_ns = [int(channel.main_times_ns()[0]) for channel in known]
    lasts_ns = [int(channel.main_times_ns()[-1]) for channel in known]
    for channel in known:
        lacks_s = max(shortfall_s(channel.main_times_ns(), min(firsts_ns), max(lasts_ns)))
        if lacks_s > config.max_gap_periods * usual_period_s(channel, 0.0) + channel.blur_s:
            cause = reason("power_not_covered", f"The readings of {channel.name} lack {lacks_s:.1f} s of the log.")
            return _figures(_missing(logged, cause), 0.0)
    # An average counts for half a second before it was read: up to there it can be held against the counter.
    checks_ns = [channel.times_ns for channel in known if channel.counted and len(channel.times_ns)]
    start_ns = max(firsts_ns + [int(times_ns[0]) for times_ns in checks_ns])
    end_ns = min(lasts_ns + [int(times_ns[-1]) for times_ns in checks_ns])
    moved_ns = next((channel.counter_moved_ns for channel in known if channel.counted), None)
    if end_ns > start_ns and moved_ns is not None:
        window = snapped(Window("log", start_ns, end_ns), moved_ns)
        start_ns, end_ns = window.start_ns, window.end_ns
    if end_ns <= start_ns:
        cause = reason("power_not_covered", "The log is too short: there is no time that all readings cover.")
        return _figures(_missing(logged, cause), 0.0)
    return _figures(energy_between(known, start_ns, end_ns, config), (end_ns - start_ns) / 1e9)


def _missing(logged: Sequence[Channel], why: Reason) -> Figure:
    own = list(logged)
    return judged(None, "J", boundary=boundary(own), grade=grade(own), basis="total", reasons=[why])


def _figures(total: Figure, duration_s: float) -> dict[str, Figure]:
    mean = times(total, 1 / duration_s if duration_s else 1.0, "W")
    return {
        "duration_s": judged(duration_s, "s", boundary="window", grade="counted"),
        "energy_total_j": total,
        "power_mean_w": mean,
    }
