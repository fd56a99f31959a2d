"""Reads channels at their rates, in threads."""

import threading
import time
from collections.abc import Sequence

from inference_energy.acquire.power.base import Channel, Reading
from inference_energy.acquire.power.deadlines import Deadlines
from inference_energy.acquire.power.polled import ChannelStats, Lateness, Polled
from inference_energy.contracts.power import GPU_MODULE, GPU_SAMPLES, summed_keys

LATE_SHARE = 0.1
"""A poll that starts later than this share of its period is counted as late."""

SLEEP_AT_MOST_S = 0.5
"""Sleeping takes about half the processor time that a wait for an event takes, but cannot be cut short."""


class Poller:
    """Polls channels until told to stop: those without a period of their own in one thread, each other in its own.

    A channel that fails is tried again at its next deadline. The first polls are all made at once. After that the slow
    channels take turns over their period, so that they neither wake together nor with the fast ones.

    Args:
        channels: what to read.
        interval_s: the period of those that have none of their own.
    """

    def __init__(self, channels: Sequence[Channel], interval_s: float) -> None:
        self._interval_ns = round(interval_s * 1e9)
        self._stop = threading.Event()
        fast = _group([channel for channel in channels if channel.period_s is None], interval_s)
        slow = [_group([channel], channel.period_s) for channel in channels if channel.period_s is not None]
        self._slow = len(slow)
        by_channel = {polled.channel: polled for group in [fast, *slow] for polled in group.polled}
        self.polled = [by_channel[channel] for channel in channels]
        for polled in self.polled:
            place = (polled.channel.device, polled.channel.domain)
            polled.peers = [
                other
                for other in self.polled
                if other is not polled and (other.channel.device, other.channel.domain) == place
            ]
        self._threads = [
            threading.Thread(
                target=self._run, args=(group, turn), daemon=True, name=f"poll-{group.polled[0].channel.device}"
            )
            for turn, group in enumerate([fast, *slow])
            if group.polled
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

    def collect(self) -> list[tuple[Channel, list[Reading]]]:
        """The readings of each channel since the last call; called by one thread at a time."""
        return [(polled.channel, polled.collect()) for polled in self.polled]

    def stats(self) -> list[ChannelStats]:
        """The counts of each channel so far; rows and faults are those of what was collected."""
        return [polled.counted() for polled in self.polled]

    def silent(self) -> list[ChannelStats]:
        """The channels that must and do not yet give a reading."""
        return [polled.stats for polled in self.polled if polled.stats.reads == 0 and not polled.channel.optional]

    def latest_power_w(self) -> dict[str, float]:
        """The newest power of each domain in W that was collected, its devices added up, each once."""
        known = {
            (polled.stats.source, polled.stats.device, polled.stats.domain): polled
            for polled in self.polled
            if polled.power_w is not None and polled.stats.domain not in (GPU_SAMPLES, GPU_MODULE)
        }
        keys = summed_keys((key, polled.stats.grade) for key, polled in known.items())
        added = {domain for *_, domain in keys}
        latest: dict[str, float] = {}
        for key, polled in known.items():
            if key in keys or key[2] not in added:
                latest[key[2]] = latest.get(key[2], 0.0) + (polled.power_w or 0.0)
        return latest

    def _run(self, group: "_Group", turn: int) -> None:
        # The fast ones have turn 0 and begin their intervals; the others begin in the middle of one.
        phase_ns = 0
        if turn:
            phase_ns = group.period_ns * turn // (self._slow + 1)
            phase_ns += self._interval_ns // 2 - phase_ns % self._interval_ns
        deadlines = Deadlines(self._start_ns, group.period_ns, phase_ns % group.period_ns)
        due_ns = self._start_ns
        while True:
            group.note_start(time.monotonic_ns() - due_ns)
            for polled in group.polled:
                polled.poll()
            missed = deadlines.missed
            due_ns = deadlines.advance(time.monotonic_ns())
            if deadlines.missed > missed:
                for polled in group.polled:
                    polled.stats.missed = deadlines.missed
            if self._stopped_before(due_ns):
                return

    def _stopped_before(self, due_ns: int) -> bool:
        """Wait for an absolute deadline, so that delays do not add up; whether polling is to end instead."""
        wait_s = max(0.0, (due_ns - time.monotonic_ns()) / 1e9)
        if wait_s > SLEEP_AT_MOST_S:
            return self._stop.wait(wait_s)
        time.sleep(wait_s)
        return self._stop.is_set()


class _Group:
    """Channels that are read one after another at the same deadlines."""

    def __init__(self, polled: list[Polled], period_ns: int, lateness: Lateness) -> None:
        self.polled = polled
        self.period_ns = period_ns
        self._lateness = lateness

    def note_start(self, late_ns: int) -> None:
        """Count how late a poll begins."""
        self._lateness.add(late_ns)
        if late_ns > LATE_SHARE * self.period_ns:
            for polled in self.polled:
                polled.stats.late += 1


def _group(channels: Sequence[Channel], period_s: float) -> _Group:
    lateness = Lateness()
    return _Group([Polled(channel, period_s, lateness) for channel in channels], int(period_s * 1e9), lateness)
