"""Plausibility limits of power: readings that no board or socket can give stay in the log, and are used for nothing.

Drivers give garbage as good readings: NVML 3.7 MW (MangoHud issue 2144), RAPL 64.8 kW for one second (powerstat issue
16). A channel's limit is the setting `power.plausible_power_w`, else a multiple of the power limit that its driver
states, both in the log as `plausible_power_w`, else that of its domain. An energy counter is held to the same limit: a
step is believed if the mean power that it implies is possible.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Times = NDArray[np.int64]
    Values = NDArray[np.float64]

PLAUSIBLE_POWER_W = "plausible_power_w"

BOARD_FACTOR = 1.5
"""Readings of a GPU above its highest power limit: a board keeps to the limit over tens of ms, and its sensor averages
over 25 ms and more (Yang, Adamek, Armour, SC24)."""

SOCKET_FACTOR = 2.0
"""A socket may exceed its short-term limit until its regulation acts, and RAPL is read over short times."""

DOMAIN_LIMITS_W: Mapping[str, float] = {
    "gpu": 2000.0,
    "gpu_memory": 2000.0,
    "gpu_samples": 2000.0,
    "gpu_module": 5000.0,
    "cpu_package": 1500.0,
    "dram": 1000.0,
    "psys": 5000.0,
    "cpu": 5000.0,
    "node": 1e6,
}
"""Limits where none is stated: above the boards, sockets and racks of 2026 (GPUs 1.4 kW, sockets 0.76 kW)."""

LOWEST_STATED_W = 5.0
"""A power limit below is a driver's word for none, such as 0."""

CONFIRMING_READINGS = 3
"""A counter that went back or jumped began anew once this many readings go on from there; before, it is a glitch."""

_WRAP_J: Mapping[str, float] = {"gpu": 2**32 / 1e3}
"""Range of a GPU's counter whose driver counts mJ in 32 bits. Sources undo all other wraps themselves."""


def stated_limit_w(powers_w: Iterable[float | None], factor: float, highest_w: float = 1e4) -> float | None:
    """Return the plausibility limit by the power limits that a driver states; None where none can be meant.

    Args:
        powers_w: the limits as far as they could be read.
        factor: how far readings may be above them.
        highest_w: a limit above is a driver's word for none, such as 2^32 - 1 mW.
    """
    meant = [power_w for power_w in powers_w if power_w is not None and LOWEST_STATED_W <= power_w <= highest_w]
    return factor * max(meant) if meant else None


def limit_w(domain: str, facts: Mapping[str, Any]) -> float:
    """Return a channel's limit from its facts in the log's metadata, else that of its domain."""
    stated = facts.get(PLAUSIBLE_POWER_W)
    if isinstance(stated, int | float) and math.isfinite(stated) and stated > 0:
        return float(stated)
    return domain_limit_w(domain)


def domain_limit_w(domain: str) -> float:
    """Return the limit of a domain where none is stated."""
    return DOMAIN_LIMITS_W.get(domain, DOMAIN_LIMITS_W["node"])


def is_implausible(power_w: float, highest_w: float) -> bool:
    """Return whether a reading is no number, negative or above the limit."""
    return not 0 <= power_w <= highest_w


def implausible(power_w: Values, highest_w: float | Values) -> NDArray[np.bool_]:
    """Return which readings cannot be; NaN stands for a missing one."""
    import numpy as np

    return ~np.isnan(power_w) & ~((power_w >= 0) & (power_w <= highest_w))


@dataclass(frozen=True)
class CheckedCounter:
    """An energy counter without the readings that cannot be.

    Attributes:
        times_ns, counter_j: the believed readings, wraps of 32 bits undone.
        withheld_ns, withheld_j: the others.
        breaks_ns: pairs of neighboring believed readings between which the counter began anew or jumped, so that the
            energy between them is not known; shape (breaks, 2).
    """

    times_ns: Times
    counter_j: Values
    withheld_ns: Times
    withheld_j: Values
    breaks_ns: Times


def checked_counter(times_ns: Times, counter_j: Values, domain: str, highest_w: float) -> CheckedCounter:
    """Check an energy counter against the highest plausible power.

    A step is believed if it does not go back, and if it implies no more than the limit over the time since the counter
    last moved and one usual time between two movements, since a counter shows at once what it gathered.

    Args:
        times_ns: ascending times of the readings.
        counter_j: their values.
        domain: the channel's domain.
        highest_w: the channel's limit.
    """
    import numpy as np  # here, because the process beside a load does without it

    finite = np.isfinite(counter_j)
    lost_ns, lost_j = times_ns[~finite], counter_j[~finite]
    times_ns, counter_j = times_ns[finite], counter_j[finite]
    steps_j = np.diff(counter_j)
    moved_ns = times_ns[1:][steps_j != 0]
    if len(moved_ns) > 1:
        slack_s = float(np.median(np.diff(moved_ns))) / 1e9
    else:
        slack_s = int(np.ptp(times_ns)) / 1e9 if len(times_ns) else 0.0
    if np.all((steps_j >= 0) & (steps_j <= highest_w * (np.diff(times_ns) / 1e9 + slack_s))):
        return CheckedCounter(times_ns, counter_j, lost_ns, lost_j, np.zeros((0, 2), dtype=np.int64))
    values = counter_j.copy()
    wrap_j = _WRAP_J.get(domain, 0.0)

    def highest_step_j(before: int, after: int) -> float:
        return highest_w * ((int(times_ns[after]) - int(times_ns[before])) / 1e9 + slack_s)

    def follows(before: int, after: int) -> bool:
        return bool(0 <= values[after] - values[before] <= highest_step_j(before, after))

    believed, pending, withheld = [0], list[int](), list[int]()
    breaks: list[tuple[int, int]] = []
    last = 0  # where the counter last moved: what it gathered since may show at once
    for index in range(1, len(values)):
        if values[believed[-1]] != values[last]:
            last = believed[-1]
        wrapped_j = values[index] + wrap_j - values[last]
        if wrap_j and values[index] < values[last] and 0 <= counter_j[last] < wrap_j:
            values[index:] += wrap_j if 0 <= wrapped_j <= highest_step_j(last, index) else 0.0
        if follows(last, index):
            withheld += pending
            pending = []
            believed.append(index)
            continue
        if pending and not follows(pending[-1], index):
            withheld += pending
            pending = []
        pending.append(index)
        if len(pending) == CONFIRMING_READINGS:
            if len(believed) == 1:  # the first reading itself was the glitch
                withheld += believed
                believed, last = pending, pending[0]
            else:
                breaks.append((believed[-1], pending[0]))
                believed += pending
            pending = []
    withheld += pending
    return CheckedCounter(
        times_ns[believed],
        values[believed],
        np.concatenate([lost_ns, times_ns[withheld]]),
        np.concatenate([lost_j, counter_j[withheld]]),
        times_ns[np.array(breaks, dtype=np.intp).reshape(-1, 2)],
    )
