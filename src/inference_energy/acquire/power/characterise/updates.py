"""When a sensor shows something new, and on what grid its values lie."""

from typing import NamedTuple

import numpy as np

from inference_energy.acquire.power.characterise.polls import Floats, Integers

FEWEST_UPDATES = 10
FEWEST_VALUES = 20


class Updates(NamedTuple):
    """New values, in order.

    Attributes:
        time_ns: the middle between the last poll with the old value and the first with the new, shape (n,).
        value: the new values in the sensor's own whole numbers (mW, mJ), shape (n,).
        slack_ns: half the time between those polls, shape (n,): the update lies within time_ns +- slack_ns.
    """

    time_ns: Integers
    value: Integers
    slack_ns: Integers


def updates_of(time_ns: Integers, value: Integers) -> Updates:
    """The updates among polls, shape (n,) each. The first value is none: nobody saw it come."""
    first = np.flatnonzero(np.diff(value) != 0) + 1
    before, after = time_ns[first - 1], time_ns[first]
    return Updates((before + after) // 2, value[first], (after - before) // 2)


def intervals_s(updates: Updates) -> Floats:
    """Times between updates that follow each other, shape (n - 1,)."""
    return np.asarray(np.diff(updates.time_ns) / 1e9, dtype=np.float64)


def grid(values: Integers) -> int | None:
    """The step of the grid on which all values lie: the greatest common divisor of their differences.

    None with fewer than `FEWEST_VALUES` different values, which may lie on a coarser grid by chance.
    """
    distinct = np.unique(values)
    if len(distinct) < FEWEST_VALUES:
        return None
    return int(np.gcd.reduce(np.diff(distinct)))


def stamps(driver_us: Integers) -> Updates:
    """The driver's own times as updates: each new timestamp is one, at the time that it tells."""
    fresh = driver_us[np.flatnonzero(np.diff(driver_us) > 0) + 1]
    return Updates(fresh * 1000, fresh, np.zeros(len(fresh), dtype=np.int64))
