"""A load process's report of a cell: its counts so far, how fast first tokens came, and its times at the end."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

STEPS_PER_OCTAVE = 8


@dataclass(frozen=True, slots=True)
class CellTimes:
    """When a cell sent requests, and when the last one in flight had ended or was cut off; monotonic ns."""

    start_ns: int
    end_ns: int
    drained_ns: int


class Histogram:
    """Durations in buckets, 8 to an octave, so that a quantile is right within 4.5 %.

    Histograms of several processes add up, which quantiles do not.
    """

    def __init__(self, counts: Iterable[tuple[int, int]] = ()) -> None:
        self.counts: dict[int, int] = dict(counts)

    def add(self, duration_ns: int) -> None:
        """Count one duration [ns]."""
        bucket = int(math.log2(max(1, duration_ns)) * STEPS_PER_OCTAVE)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1

    def update(self, other: "Histogram") -> None:
        """Add the counts of another."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    def quantile_s(self, share: float) -> float | None:
        """Return a quantile [s], the middle of its bucket; None without a count."""
        rank = share * sum(self.counts.values())
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return float(2 ** ((bucket + 0.5) / STEPS_PER_OCTAVE)) / 1e9
        return None


@dataclass
class LiveCounts:
    """A cell's counts so far.

    Attributes:
        offered: requests that have been due.
        sent: offered requests that were sent.
        ended: sent requests that have ended in some way.
        ok, failed, aborted: ended requests by status.
        skipped: requests that were never sent, such as later turns of a conversation that failed.
        prompt_tokens, completion_tokens: of ended requests, by the server's count.
        ttft: time from when a request was due to its first token.
        first_error: the error of the first failed request.
    """

    offered: int = 0
    sent: int = 0
    ended: int = 0
    ok: int = 0
    failed: int = 0
    aborted: int = 0
    skipped: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ttft: Histogram = field(default_factory=Histogram)
    first_error: str | None = None

    @property
    def in_flight(self) -> int:
        """Requests sent and not ended."""
        return self.sent - self.ended

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as JSON holds them."""
        facts = {name: getattr(self, name) for name in _COUNTS}
        return {**facts, "ttft": sorted(self.ttft.counts.items()), "first_error": self.first_error}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "LiveCounts":
        """Read the result of `as_dict`."""
        counts = {name: int(facts[name]) for name in _COUNTS}
        ttft = Histogram((int(bucket), int(number)) for bucket, number in facts["ttft"])
        return cls(**counts, ttft=ttft, first_error=facts["first_error"])

    @classmethod
    def total(cls, parts: Iterable["LiveCounts"]) -> "LiveCounts":
        """Return the sum over processes."""
        total = cls()
        for part in parts:
            for name in _COUNTS:
                setattr(total, name, getattr(total, name) + getattr(part, name))
            total.ttft.update(part.ttft)
            total.first_error = total.first_error or part.first_error
        return total


_COUNTS = (
    *("offered", "sent", "ended", "ok", "failed", "aborted", "skipped"),
    *("prompt_tokens", "completion_tokens"),
)
