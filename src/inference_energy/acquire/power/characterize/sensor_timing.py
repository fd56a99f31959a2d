"""Fast polls of a sensor: when it updates, on which grid its values lie, and what a call costs.

A call is made on a grid of deadlines, with the time and values of each. Means have their uncertainty: of readings at
idle, and of an integral over the counter's energy.
"""

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from inference_energy.acquire.power.characterize.gpu import MISSING
from inference_energy.acquire.power.polling import Deadlines
from inference_energy.errors import RunError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

Read = Callable[[], Sequence[int]]


class Polls(NamedTuple):
    """Polls in order of time.

    Attributes:
        middle_ns: middle of each call on the monotonic clock, shape (n,).
        latency_us: how long it took, shape (n,).
        late_us: how long after its deadline it began, shape (n,).
        values: what it gave, shape (n, k).
        failed: calls that ended in an error; they are not among the n.
        skipped: deadlines that had passed while a call still ran.
    """

    middle_ns: Integers
    latency_us: Floats
    late_us: Floats
    values: Integers
    failed: int
    skipped: int


def poll(read: Read, period_s: float, *, until_ns: int, error: type[Exception], stop: threading.Event) -> Polls:
    """Call `read` every `period_s` until a time, or until `stop` is set.

    Raises:
        RunError: no call worked; the message gives the last error.
    """
    deadlines = Deadlines(time.monotonic_ns(), max(1, round(period_s * 1e9)))
    deadline_ns = deadlines.advance(time.monotonic_ns())
    rows: list[tuple[int, int, int, Sequence[int]]] = []
    failed, last_error = 0, "no poll was made"
    while deadline_ns < until_ns and not stop.is_set():
        if (wait_ns := deadline_ns - time.monotonic_ns()) > 0:
            time.sleep(wait_ns / 1e9)
        before_ns = time.monotonic_ns()
        try:
            values = read()
        except error as failure:
            failed, last_error = failed + 1, str(failure)
        else:
            rows.append((before_ns, time.monotonic_ns(), deadline_ns, values))
        deadline_ns = deadlines.advance(time.monotonic_ns())
    if not rows:
        raise RunError(f"the GPU gave no reading: {last_error}")
    times = np.array([row[:3] for row in rows], dtype=np.int64)
    before, after = times[:, 0], times[:, 1]
    return Polls(
        (before + after) // 2,
        (after - before) / 1e3,
        (before - times[:, 2]) / 1e3,
        np.array([row[3] for row in rows], dtype=np.int64).reshape(len(rows), -1),
        failed,
        deadlines.missed,
    )


class Background:
    """Polls in a thread of its own for the length of a block, so that a slow call delays no other."""

    def __init__(self, read: Read, period_s: float, error: type[Exception]) -> None:
        self._arguments = read, period_s, error
        self._stop = threading.Event()
        self._found: Polls | Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(10)

    def polls(self) -> Polls:
        """What was polled; after the block.

        Raises:
            RunError: no call worked, or the last one has not come back.
        """
        if isinstance(self._found, Exception):
            raise self._found
        if self._found is None:
            raise RunError("a call for the energy counter has not come back for 10 s")
        return self._found

    def _run(self) -> None:
        read, period_s, error = self._arguments
        try:
            self._found = poll(read, period_s, until_ns=2**63 - 1, error=error, stop=self._stop)
        except Exception as failure:  # told by `polls`
            self._found = failure


def call_costs_us(calls: dict[str, Callable[[], Any]], duration_s: float, error: type[Exception]) -> dict[str, Floats]:
    """How long each call takes, one after the other for `duration_s` altogether; those that fail are left out."""
    costs: dict[str, list[float]] = {name: [] for name in calls}
    until_ns = time.monotonic_ns() + round(duration_s * 1e9)
    while time.monotonic_ns() < until_ns:
        for name, call in calls.items():
            before_ns = time.monotonic_ns()
            try:
                call()
            except error:
                continue
            costs[name].append((time.monotonic_ns() - before_ns) / 1e3)
    return {name: np.array(each) for name, each in costs.items() if each}


def column(polls: Polls, index: int) -> tuple[Integers, Integers]:
    """(times in ns, values) of one column, without the polls that did not give it."""
    given = polls.values[:, index] != MISSING
    return polls.middle_ns[given], polls.values[given, index]


FEWEST_BLOCKS = 5
FEWEST_RATIOS = 3


class Mean(NamedTuple):
    """A mean, and its 95 % interval where there are enough independent parts."""

    value: float
    interval_95: tuple[float, float] | None
    parts: int


def block_mean(times_s: Floats, values: Floats, block_s: float) -> Mean:
    """Mean of the readings.

    The interval is Student's over the means of blocks of `block_s`, which are taken to be independent; there is none
    with fewer than `FEWEST_BLOCKS` blocks.
    """
    value = float(values.mean())
    blocks = int((times_s[-1] - times_s[0]) / block_s)
    if blocks < FEWEST_BLOCKS:
        return Mean(value, None, blocks)
    place = np.minimum(((times_s - times_s[0]) / block_s).astype(np.int64), blocks - 1)
    counts = np.bincount(place, minlength=blocks)
    means = np.bincount(place, weights=values, minlength=blocks)[counts > 0] / counts[counts > 0]
    return _interval(value, float(means.std(ddof=1) / np.sqrt(len(means))), len(means))


def integral_over_counter(
    power_s: Floats, power_w: Floats, counter_s: Floats, counter_j: Floats, cuts_s: Floats
) -> Mean | None:
    """Energy by the trapezoid over that of the counter.

    Args:
        power_s: the middle of what each reading is the mean of, shape (n,).
        power_w: the readings, shape (n,).
        counter_s: the counter's edges, shape (m,).
        counter_j: what it showed from each on, shape (m,).
        cuts_s: about where to cut; each is moved to the counter's nearest edge.

    Returns:
        The ratio over all parts, with the jackknife's interval over the parts from `FEWEST_RATIOS` on; None where
        there is no whole part, or the counter did not move.
    """
    inside = (cuts_s > power_s[0]) & (cuts_s < power_s[-1])
    if len(counter_s) < 2 or inside.sum() < 2:
        return None
    edges = np.unique([int(np.argmin(np.abs(counter_s - cut_s))) for cut_s in cuts_s[inside]])
    edges = edges[(counter_s[edges] > power_s[0]) & (counter_s[edges] < power_s[-1])]
    if len(edges) < 2:
        return None
    integral_j = np.diff([_trapezoid_to(power_s, power_w, counter_s[edge]) for edge in edges])
    counted_j = np.diff(counter_j[edges])
    if counted_j.sum() <= 0:
        return None
    value, parts = float(integral_j.sum() / counted_j.sum()), len(counted_j)
    if parts < FEWEST_RATIOS:
        return Mean(value, None, parts)
    left_out = (integral_j.sum() - integral_j) / (counted_j.sum() - counted_j)
    error = float(np.sqrt((parts - 1) / parts * np.sum((left_out - left_out.mean()) ** 2)))
    return _interval(value, error, parts)


def _interval(value: float, error: float, parts: int) -> Mean:
    half = float(student.ppf(0.975, parts - 1)) * error
    return Mean(value, (value - half, value + half), parts)


def _trapezoid_to(times_s: Floats, power_w: Floats, end_s: float) -> float:
    """The integral from the first reading to `end_s`, linear between readings."""
    before = times_s < end_s
    last_w = float(np.interp(end_s, times_s, power_w))
    return float(np.trapezoid(np.append(power_w[before], last_w), np.append(times_s[before], end_s)))


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
