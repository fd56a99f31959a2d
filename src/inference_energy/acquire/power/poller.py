"""Reads channels at their rates, in threads, and counts what went wrong."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from inference_energy.acquire.power.base import Channel, Reading, SourceError
from inference_energy.acquire.power.deadlines import Deadlines

LATE_SHARE = 0.1
"""A poll that starts later than this share of its period is counted as late."""


@dataclass(slots=True)
class ChannelStats:
    """What happened to one channel. `missed` polls were skipped because the one before took too long."""

    source: str
    device: str
    domain: str
    grade: str
    period_s: float
    reads: int = 0
    errors: int = 0
    last_error: str | None = None
    late: int = 0
    missed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As it is written to JSON."""
        return asdict(self)


class _Polled:
    def __init__(self, channel: Channel, period_s: float) -> None:
        self.channel = channel
        self.power_w: float | None = None
        self.stats = ChannelStats(channel.source, channel.device, channel.domain, channel.grade, period_s)

    def poll(self, append: Callable[[Channel, Reading], None]) -> None:
        try:
            reading = self.channel.read()
        except Exception as error:  # whatever happens in one channel must not end the others
            self.stats.errors += 1
            known = isinstance(error, SourceError)
            self.stats.last_error = str(error) if known else f"{type(error).__name__}: {error}"
            return
        self.stats.reads += 1
        if reading.power_w is not None:
            self.power_w = reading.power_w
        append(self.channel, reading)


class Poller:
    """Polls channels until told to stop: those without a period of their own in one thread, each other in its own.

    A channel that fails is tried again at its next deadline.

    Args:
        channels: what to read.
        interval_s: the period of those that have none of their own.
        append: takes each reading, from any thread.
    """

    def __init__(
        self, channels: Sequence[Channel], interval_s: float, append: Callable[[Channel, Reading], None]
    ) -> None:
        self._append = append
        self._stop = threading.Event()
        self._polled = [_Polled(channel, channel.period_s or interval_s) for channel in channels]
        fast = [polled for polled in self._polled if polled.channel.period_s is None]
        slow = [[polled] for polled in self._polled if polled.channel.period_s is not None]
        self._threads = [
            threading.Thread(target=self._run, args=(group,), daemon=True, name=f"poll-{group[0].channel.device}")
            for group in [fast, *slow]
            if group
        ]
        self._start_ns = 0

    def start(self) -> None:
        """Begin to poll."""
        self._start_ns = time.monotonic_ns()
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 5.0) -> list[str]:
        """End the threads; returns the names of those that hang in a read and are left behind."""
        self._stop.set()
        until_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        return [thread.name for thread in self._threads if thread.is_alive()]

    def stats(self) -> list[ChannelStats]:
        """The counts of each channel so far."""
        return [polled.stats for polled in self._polled]

    def silent(self) -> list[ChannelStats]:
        """The channels that have not given a reading yet."""
        return [stats for stats in self.stats() if stats.reads == 0]

    def latest_power_w(self) -> dict[str, float]:
        """The newest power of each domain in W, its devices added up."""
        latest: dict[str, float] = {}
        for polled in self._polled:
            if polled.power_w is not None:
                domain = polled.channel.domain
                latest[domain] = latest.get(domain, 0.0) + polled.power_w
        return latest

    def _run(self, group: list[_Polled]) -> None:
        period_ns = int(group[0].stats.period_s * 1e9)
        deadlines = Deadlines(self._start_ns, period_ns)
        while True:
            for polled in group:
                polled.poll(self._append)
            due_ns = deadlines.advance(time.monotonic_ns())
            for polled in group:
                polled.stats.missed = deadlines.missed
            if self._stop.wait(max(0.0, (due_ns - time.monotonic_ns()) / 1e9)):
                return
            if time.monotonic_ns() - due_ns > LATE_SHARE * period_ns:
                for polled in group:
                    polled.stats.late += 1
