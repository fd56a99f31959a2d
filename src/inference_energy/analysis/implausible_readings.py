"""Reasons for readings that cannot be, which `contracts.plausible_power` set aside."""

import numpy as np

from inference_energy.analysis.power_series import PowerSeries
from inference_energy.contracts.figure import Reason
from inference_energy.contracts.reason_codes import reason

MAX_WITHHELD_SHARE = 0.05
"""A sensor of which more readings cannot be is not believed for the rest either."""


def withheld_reasons(channel: PowerSeries, start_ns: int, end_ns: int) -> list[Reason]:
    """Return reasons for the readings in a stretch of time that cannot be and were set aside.

    A few of those that the energy comes from are noted, as are those that only check it; more than
    `MAX_WITHHELD_SHARE` invalidate, since the rest may be wrong in ways that do not show.
    """
    reasons = []
    has_none = not len(channel.energy_times_ns)
    for name, (times_ns, values) in channel.withheld.items():
        inside = (times_ns >= start_ns) & (times_ns <= end_ns)
        count = int(np.sum(inside))
        if not count:
            continue
        believed_ns = channel.counter_times_ns if name == "counter" else channel.power_of(name)[0]
        total = count + int(np.sum((believed_ns >= start_ns) & (believed_ns <= end_ns)))
        kind = "the energy counter" if name == "counter" else f"the {name} power"
        sentence = f"{count} of {total} readings of {kind} of {channel.name} are implausible and left out, such as "
        worst = float(values[inside][np.argmax(np.abs(values[inside]))])
        limit = f" (at most {channel.highest_w:,.0f} W is plausible)"
        sentence += f"{worst:.7g} J{limit}." if name == "counter" else f"{worst:.7g} W{limit}."
        is_energy = has_none or name == channel.energy_reading
        invalid = is_energy and (has_none or count > MAX_WITHHELD_SHARE * total)
        reasons.append(reason("implausible_power" if invalid else "readings_withheld", sentence))
    if channel.left_out:
        reasons.append(
            reason(
                "counter_left_out",
                f"Beside {channel.name} the source shows {', '.join(channel.left_out)}, which stood still or "
                "gave no power when sampling began: that part is not in the figures.",
            )
        )
    return reasons


def break_reasons(channel: PowerSeries, start_ns: int, end_ns: int) -> list[Reason]:
    """Return the reason for the first step of the counter in a stretch of time that cannot be energy."""
    for before_ns, after_ns in channel.counter_breaks_ns:
        if before_ns < end_ns and after_ns > start_ns:
            return [_broken(channel, int(before_ns), int(after_ns))]
    return []


def _broken(channel: PowerSeries, before_ns: int, after_ns: int) -> Reason:
    """Return the reason for a step of the counter that cannot be energy."""
    places = np.searchsorted(channel.counter_times_ns, [before_ns, after_ns])
    before_j, after_j = (float(value) for value in channel.counter_j[places])
    did = f"went back by {before_j - after_j:.6g} J, so it began anew"
    if after_j >= before_j:
        did = (
            f"rose by {after_j - before_j:.6g} J in {(after_ns - before_ns) / 1e9:.3g} s, more than the plausible "
            f"{channel.highest_w:.4g} W"
        )
    return reason("counter_reset", f"The energy counter of {channel.name} {did}.")
