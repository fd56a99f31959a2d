"""One channel while it is polled, and the counts of what happened to it."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from inference_energy.acquire.power.base import Channel, Reading, SourceError
from inference_energy.acquire.power.still import Stillness

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


class Polled:
    """A channel and what became of it. Its lock is held during a read, and while its source is opened anew.

    One thread polls, which must be punctual: it only keeps what came. Another collects it now and then, and works out
    then what is to be known of the readings, many at once, which costs less than a little after each read.

    Attributes:
        failing: errors since the last read that worked.
        power_w: the newest power, as of the last `collect`.
    """

    def __init__(self, channel: Channel, period_s: float, lateness: Lateness) -> None:
        self.channel = channel
        self.lock = threading.Lock()
        self.failing = 0
        self.power_w: float | None = None
        self.stats = ChannelStats(channel.source, channel.device, channel.domain, channel.grade, period_s)
        self.peers: Sequence[Polled] = ()
        self._came: list[Reading] = []
        self._lateness = lateness
        self._closed: str | None = None
        self._earlier_notes: list[dict[str, Any]] = []
        self._still = None if channel.still_limit_s is None else Stillness(channel.still_limit_s)

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

    def collect(self) -> list[Reading]:
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

    def replace(self, channel: Channel) -> None:
        """Go on with the channel of the source that was opened anew; the caller holds the lock."""
        self._earlier_notes.append(self.channel.notes())
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
        self.stats.notes = _joined([*self._earlier_notes, self.channel.notes()])
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
