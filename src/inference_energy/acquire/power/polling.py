"""When to poll next: deadlines on a fixed grid of the monotonic clock, so that delays do not add up.

When to poll next: deadlines on a fixed grid of the monotonic clock, so that delays do not add up.

One channel while it is polled, and the counts of what happened to it.

Reads channels at their rates, in threads.
"""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from inference_energy.acquire.power.base import PowerSample, SensorChannel, SourceError
from inference_energy.acquire.power.stuck import StuckDetector
from inference_energy.contracts.power import GPU_MODULE, GPU_SAMPLES, summed_keys


class Deadlines:
    """The grid start, start + period, start + 2 period, ...; with a phase, start and then the grid from start + phase.

    A deadline that has passed while the work before it was still going on is skipped and counted in `missed`: polls
    made late in a burst would show the same sensor value twice.
    """

    def __init__(self, start_ns: int, period_ns: int, phase_ns: int = 0) -> None:
        if period_ns <= 0 or not 0 <= phase_ns < period_ns:
            raise ValueError("the period must be above zero, and the phase from zero to below the period")
        self._grid_ns = start_ns + phase_ns
        self._period_ns = period_ns
        self._index = -1 if phase_ns else 0
        self._free_ns = start_ns + period_ns
        self.missed = 0

    def advance(self, now_ns: int) -> int:
        """The next deadline after the current one that is still ahead of `now_ns`, in ns."""
        ahead = max(self._index + 1, (now_ns - self._grid_ns) // self._period_ns + 1)
        # The way from start to the phased grid is shorter than a period: a first poll may take a whole one.
        if self._index >= 0 or now_ns >= self._free_ns:
            self.missed += ahead - self._index - 1
        self._index = ahead
        return self._grid_ns + ahead * self._period_ns


BIN_NS = 10_000


class Lateness:
    """How long after its deadline each poll began, in bins of 10 us; bounded in memory however long it goes on."""

    def __init__(self) -> None:
        self._bins: Counter[int] = Counter()
        self._max_ns = 0

    def add(self, late_ns: int) -> None:
        """Count one poll."""
        self._bins[late_ns // BIN_NS] += 1
        self._max_ns = max(self._max_ns, late_ns)

    def in_ms(self) -> dict[str, float]:
        """`p50`, `p99` and `max` in ms, the first two to 0.01 ms; empty where nothing was polled."""
        bins = sorted(self._bins.copy().items())
        total = sum(count for _, count in bins)
        if not total:
            return {}
        found = {}
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            passed = 0
            for index, count in bins:
                passed += count
                if passed >= share * total:
                    found[name] = min((index + 1) * BIN_NS, self._max_ns) / 1e6
                    break
        return {**found, "max": self._max_ns / 1e6}


@dataclass(slots=True)
class ChannelStats:
    """What happened to one channel.

    `rows` are its readings, several or none a read; `missed` polls were skipped because the one before took too long;
    `late` ones began later than a tenth of the period, and `late_ms` says how late polls were (p50, p99, max).
    `reopened` counts how often its source was opened anew. `faults` are sentences about what it gave.
    """

    source: str
    device: str
    domain: str
    grade: str
    period_s: float
    reads: int = 0
    rows: int = 0
    errors: int = 0
    last_error: str | None = None
    late: int = 0
    missed: int = 0
    reopened: int = 0
    late_ms: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As it is written to JSON: the channel's own notes stand beside the counts."""
        facts = asdict(self)
        return {**facts, **facts.pop("notes")}


class PolledChannel:
    """A channel and what became of it. Its lock is held during a read, and while its source is opened anew.

    One thread polls, which must be punctual: it only keeps what came. Another collects it now and then, and works out
    then what is to be known of the readings, many at once, which costs less than a little after each read.

    Attributes:
        failing: errors since the last read that worked.
        power_w: the newest power, as of the last `collect`.
    """

    def __init__(self, channel: SensorChannel, period_s: float, lateness: Lateness) -> None:
        self.channel = channel
        self.lock = threading.Lock()
        self.failing = 0
        self.power_w: float | None = None
        self.stats = ChannelStats(channel.source, channel.device, channel.domain, channel.grade, period_s)
        self.peers: Sequence[PolledChannel] = ()
        self._came: list[PowerSample] = []
        self._lateness = lateness
        self._closed: str | None = None
        self._earlier_notes: list[dict[str, Any]] = []
        self._still = None if channel.still_limit_s is None else StuckDetector(channel.still_limit_s)

    def poll(self) -> None:
        """Read once and keep what came; whatever goes wrong is counted, and never raised."""
        if not self.lock.acquire(blocking=False):
            self._fail("its source is being opened anew")
            return
        try:
            if self._closed is not None:
                self._fail(self._closed)
                return
            readings = self.channel.read_many()
        except SourceError as error:
            self._fail(str(error))
            return
        except Exception as error:  # whatever happens in one channel must not end the others
            self._fail(f"{type(error).__name__}: {error}")
            return
        finally:
            self.lock.release()
        self._came += readings
        self.failing = 0
        self.stats.reads += 1

    def collect(self) -> list[PowerSample]:
        """What came since the last call, and is now counted; called by one thread at a time."""
        count = len(self._came)
        readings = self._came[:count]
        del self._came[:count]  # what comes meanwhile stands behind these
        self.stats.rows += count
        newest_w = next((reading.power_w for reading in reversed(readings) if reading.power_w is not None), None)
        if newest_w is not None:
            self.power_w = newest_w
        if self._still is not None:
            self._still.take(readings, newest_w is not None or self._powered())
        return readings

    def replace(self, channel: SensorChannel) -> None:
        """Go on with the channel of the source that was opened anew; the caller holds the lock."""
        self._earlier_notes.append(self.channel.diagnostics())
        self.channel = channel
        self._closed = None

    def suspend(self, why: str) -> None:
        """Read no more until `replace`, because the source is closed; the caller holds the lock."""
        self._closed = why

    def counted(self) -> ChannelStats:
        """The counts, with what is only worked out when asked for."""
        self.stats.late_ms = self._lateness.in_ms()
        fault = self._still.fault() if self._still is not None else None
        self.stats.faults = [fault] if fault else []
        self.stats.notes = _joined([*self._earlier_notes, self.channel.diagnostics()])
        return self.stats

    def _fail(self, why: str) -> None:
        self.failing += 1
        self.stats.errors += 1
        self.stats.last_error = why

    def _powered(self) -> bool:
        """Whether the device draws power, as far as its other channels say: a counter may rest where it does not."""
        known = [peer.power_w for peer in self.peers if peer.power_w is not None]
        return not known or any(known)


def _joined(notes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The notes of a channel and of those it replaced: lists go on, anything else is the newest."""
    joined: dict[str, Any] = {}
    for each in notes:
        for key, value in each.items():
            joined[key] = [*joined.get(key, []), *value] if isinstance(value, list) else value
    return joined


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

    def __init__(self, channels: Sequence[SensorChannel], interval_s: float) -> None:
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

    def collect(self) -> list[tuple[SensorChannel, list[PowerSample]]]:
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

    def __init__(self, polled: list[PolledChannel], period_ns: int, lateness: Lateness) -> None:
        self.polled = polled
        self.period_ns = period_ns
        self._lateness = lateness

    def note_start(self, late_ns: int) -> None:
        """Count how late a poll begins."""
        self._lateness.add(late_ns)
        if late_ns > LATE_SHARE * self.period_ns:
            for polled in self.polled:
                polled.stats.late += 1


def _group(channels: Sequence[SensorChannel], period_s: float) -> _Group:
    lateness = Lateness()
    return _Group([PolledChannel(channel, period_s, lateness) for channel in channels], int(period_s * 1e9), lateness)
