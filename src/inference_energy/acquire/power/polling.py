"""Polling of sensor channels: on a fixed grid of deadlines, in threads, with statistics of what went wrong.

Deadlines lie on the monotonic clock, so delays do not add up: a late poll is counted, a missed one skipped and counted.
A channel that gives only zeros, or one value for too long, is not measuring, and its statistics say so.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any

from inference_energy.acquire.power.base import PowerSample, SensorChannel, SourceError
from inference_energy.contracts.outside import clean_text
from inference_energy.contracts.plausible_power import is_implausible
from inference_energy.contracts.power import GPU_MODULE, GPU_SAMPLES, summed_keys

LONGEST_MESSAGE = 500
"""Characters of an unexpected error that are kept."""


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
        """Return the next deadline in ns that is after the current one and after `now_ns`."""
        ahead = max(self._index + 1, (now_ns - self._grid_ns) // self._period_ns + 1)
        # The phased grid begins less than a period after the start, but the first poll may take a whole period.
        if self._index >= 0 or now_ns >= self._free_ns:
            self.missed += ahead - self._index - 1
        self._index = ahead
        return self._grid_ns + ahead * self._period_ns


BIN_NS = 10_000


class Lateness:
    """Poll jitter: delays from a poll's deadline to its start, in bins of 10 us, so that memory is bounded."""

    def __init__(self) -> None:
        self._bins: Counter[int] = Counter()
        self._max_ns = 0

    def add(self, late_ns: int) -> None:
        """Count one poll."""
        self._bins[late_ns // BIN_NS] += 1
        self._max_ns = max(self._max_ns, late_ns)

    def in_ms(self) -> dict[str, float]:
        """Return `p50`, `p99` and `max` in ms, the first two to 0.01 ms; empty if there was no poll."""
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


MIN_ZEROS = 10
MIN_ZEROS_S = 5.0
"""A channel counts as all-zero after `MIN_ZEROS` zero readings that span `MIN_ZEROS_S`."""

_stuck_values = attrgetter("power_instant_w", "power_average_w", "energy_counter_j")


class StuckDetector:
    """Detects a sensor that gives only zeros, or the same value for too long.

    Args:
        limit_s: how long a value may stay the same.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._value: tuple[float | None, ...] | None = None
        self._first_ns = self._since_ns = self._until_ns = 0
        self._count = 0
        self._moved = False
        self._longest_s = 0.0
        self._longest_value: float | None = None

    def update(self, readings: Iterable[PowerSample], powered: bool = True) -> None:
        """Add readings; `powered` is False while the device draws no power, when its counter may rest."""
        for reading in readings:
            value = _stuck_values(reading)
            if value == self._value and powered:
                self._until_ns = reading.timestamp_ns
            else:
                self._note()
                if self._value is None:
                    self._first_ns = reading.timestamp_ns
                self._value = value
                self._since_ns = self._until_ns = reading.timestamp_ns
                self._moved = self._moved or any(value)
            self._count += 1

    def fault(self) -> str | None:
        """Return what is wrong, as words that follow the channel's name, or None."""
        self._note()
        span_s = (self._until_ns - self._first_ns) / 1e9
        if not self._moved and self._count >= MIN_ZEROS and span_s >= MIN_ZEROS_S:
            return f"gave only zeros: {self._count} readings in {span_s:.0f} s"
        if self._longest_s <= self._limit_s:
            return None
        return f"gave the same value, {self._longest_value:g}, for {self._longest_s:.0f} s: it seems stuck"

    def _note(self) -> None:
        """Keep the stretch that ends now if it is the longest."""
        still_s = (self._until_ns - self._since_ns) / 1e9
        if self._value is not None and still_s > self._longest_s:
            known = [part for part in self._value if part is not None]
            if known:
                self._longest_s, self._longest_value = still_s, known[-1]


@dataclass(slots=True)
class ChannelStats:
    """Statistics of one channel.

    Attributes:
        rows: readings; a read gives several, one or none.
        late: polls that began later than a tenth of the period after their deadline.
        missed: polls that were skipped because the one before took too long.
        reopened: how often the source was opened again.
        late_ms: poll jitter, see `Lateness.in_ms`.
        faults: sentences about implausible readings.
        notes: the channel's own diagnostics.
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
        """Return the statistics as JSON, with the channel's diagnostics beside the counts."""
        facts = asdict(self)
        return {**facts, **facts.pop("notes")}


class PolledChannel:
    """A channel with its readings and statistics. Its lock is held during a read, and while its source is reopened.

    The polling thread must be punctual, so it only stores readings. Another thread collects them now and then and
    updates the statistics, because many readings at once cost less than one at a time.

    Attributes:
        failing: errors since the last successful read.
        power_w: the newest power, as of the last `collect`.
    """

    def __init__(self, channel: SensorChannel, period_s: float, lateness: Lateness) -> None:
        self.channel = channel
        self.lock = threading.Lock()
        self.failing = 0
        self.power_w: float | None = None
        self.stats = ChannelStats(channel.source, channel.device, channel.domain, channel.grade, period_s)
        self.peers: Sequence[PolledChannel] = ()
        self._uncollected: list[PowerSample] = []
        self._lateness = lateness
        self._suspended_because: str | None = None
        self._earlier_diagnostics: list[dict[str, Any]] = []
        self._stuck = None if channel.still_limit_s is None else StuckDetector(channel.still_limit_s)

    def poll(self) -> None:
        """Read once and keep the readings; errors are counted and never raised."""
        if not self.lock.acquire(blocking=False):
            self._fail("its source is being reopened")
            return
        try:
            if self._suspended_because is not None:
                self._fail(self._suspended_because)
                return
            readings = self.channel.read_many()
        except SourceError as error:
            self._fail(str(error))
            return
        except Exception as error:  # whatever happens in one channel must not end the others
            self._fail(f"{type(error).__name__}: {error}"[:LONGEST_MESSAGE])
            return
        finally:
            self.lock.release()
        self._uncollected += readings
        self.failing = 0
        self.stats.reads += 1

    def collect(self) -> list[PowerSample]:
        """Return the readings since the last call, and count them; called by one thread at a time."""
        count = len(self._uncollected)
        readings = self._uncollected[:count]
        del self._uncollected[:count]  # newer readings are appended meanwhile
        self.stats.rows += count
        newest_w = next(
            (
                power_w
                for reading in reversed(readings)
                if (power_w := reading.power_w) is not None and not is_implausible(power_w, self.channel.highest_w)
            ),
            None,
        )
        if newest_w is not None:
            self.power_w = newest_w
        if self._stuck is not None:
            self._stuck.update(readings, newest_w is not None or self._powered())
        return readings

    def replace(self, channel: SensorChannel) -> None:
        """Continue with a channel of the reopened source; the caller holds the lock."""
        self._earlier_diagnostics.append(self.channel.diagnostics())
        channel.limit_w = self.channel.limit_w  # the log's metadata has been written
        self.channel = channel
        self._suspended_because = None

    def suspend(self, why: str) -> None:
        """Stop reading until `replace`, because the source is closed; the caller holds the lock."""
        self._suspended_because = why

    def current_stats(self) -> ChannelStats:
        """Return the statistics, including those that are only computed on demand."""
        self.stats.late_ms = self._lateness.in_ms()
        fault = None if self._stuck is None else self._stuck.fault()
        self.stats.faults = [fault] if fault else []
        self.stats.notes = _joined([*self._earlier_diagnostics, self.channel.diagnostics()])
        return self.stats

    def _fail(self, why: str) -> None:
        self.failing += 1
        self.stats.errors += 1
        self.stats.last_error = clean_text(self.channel.hide(why))

    def _powered(self) -> bool:
        """Whether the device draws power according to its other channels: otherwise its counter may rest."""
        powers_w = [peer.power_w for peer in self.peers if peer.power_w is not None]
        return not powers_w or any(powers_w)


def _joined(diagnostics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join the diagnostics of a channel and its predecessors: lists are concatenated, other values overwritten."""
    joined: dict[str, Any] = {}
    for facts in diagnostics:
        for key, value in facts.items():
            joined[key] = [*joined.get(key, []), *value] if isinstance(value, list) else value
    return joined


LATE_SHARE = 0.1
"""A poll that starts later than this share of its period is counted as late."""

SLEEP_AT_MOST_S = 0.5
"""Sleeping takes about half the CPU time of waiting for an event, but cannot be interrupted."""


class Poller:
    """Polls channels until it is stopped: channels with a period of their own in a thread each, the others in one.

    A channel that fails is tried again at its next deadline. All first polls are made at once. After that the slow
    channels are spread over their period, so that they wake neither together nor with the fast ones.

    Args:
        channels: the channels to read.
        interval_s: period of the channels that have none of their own.
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
        """End the threads; return the names of those that hang in a read and are left behind."""
        self._stop.set()
        until_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        return [thread.name for thread in self._threads if thread.is_alive()]

    def collect(self) -> list[tuple[SensorChannel, list[PowerSample]]]:
        """Return the readings of each channel since the last call; called by one thread at a time."""
        return [(polled.channel, polled.collect()) for polled in self.polled]

    def stats(self) -> list[ChannelStats]:
        """Return the statistics of each channel; rows and faults cover the collected readings."""
        return [polled.current_stats() for polled in self.polled]

    def silent(self) -> list[ChannelStats]:
        """Return the required channels that have not given a reading yet."""
        return [polled.stats for polled in self.polled if polled.stats.reads == 0 and not polled.channel.optional]

    def latest_power_w(self) -> dict[str, float]:
        """Return the newest collected power of each domain in W, summed over devices, each counted once."""
        powered = {
            (polled.stats.source, polled.stats.device, polled.stats.domain): polled
            for polled in self.polled
            if polled.power_w is not None and polled.stats.domain not in (GPU_SAMPLES, GPU_MODULE)
        }
        keys = summed_keys((key, polled.stats.grade) for key, polled in powered.items())
        summed_domains = {domain for *_, domain in keys}
        latest: dict[str, float] = {}
        for key, polled in powered.items():
            if key in keys or key[2] not in summed_domains:
                latest[key[2]] = latest.get(key[2], 0.0) + (polled.power_w or 0.0)
        return latest

    def _run(self, group: "_Group", turn: int) -> None:
        # Fast channels (turn 0) are polled at the start of an interval, slow ones in the middle.
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
        """Wait for an absolute deadline, so that delays do not add up; return whether polling must end."""
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
