"""Polling as fast as is sensible: a call on a grid of deadlines, with the time of each and what it gave."""

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from inference_energy.acquire.power.characterise.gpu import MISSING
from inference_energy.acquire.power.deadlines import Deadlines
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
