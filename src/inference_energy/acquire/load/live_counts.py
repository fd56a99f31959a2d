"""Counts of a running cell, for progress: what was asked, what came back, and how fast the first tokens were."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

AFFECTS_RESULTS = False

STEPS_PER_OCTAVE = 8


class Histogram:
    """Durations in buckets a twelfth apart: 8 to an octave, so a quantile is right within 4.5 %.

    It adds up over processes, which quantiles do not, and costs nothing to keep.
    """

    def __init__(self, counts: Iterable[tuple[int, int]] = ()) -> None:
        self.counts: dict[int, int] = dict(counts)

    def add(self, duration_ns: int) -> None:
        """Count one duration [ns]."""
        bucket = int(math.log2(max(1, duration_ns)) * STEPS_PER_OCTAVE)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1

    def update(self, other: "Histogram") -> None:
        """Add the counts of another."""
        for bucket, number in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + number

    def quantile_s(self, share: float) -> float | None:
        """A quantile [s], the middle of its bucket; None without a count."""
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
        sent: of those, how many were sent.
        ended: of those, how many have ended in whatever way.
        ok, failed, aborted: how.
        skipped: requests that were never sent, such as later turns of a conversation that failed.
        prompt_tokens, completion_tokens: of ended requests, by the server's count.
        ttft: time from when a request was due to its first token.
        first_error: why the first failure failed.
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
        """As JSON holds it."""
        facts = {name: getattr(self, name) for name in _COUNTS}
        return {**facts, "ttft": sorted(self.ttft.counts.items()), "first_error": self.first_error}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "LiveCounts":
        """What `as_dict` wrote."""
        counts = {name: int(facts[name]) for name in _COUNTS}
        ttft = Histogram((int(bucket), int(number)) for bucket, number in facts["ttft"])
        return cls(**counts, ttft=ttft, first_error=facts["first_error"])

    @classmethod
    def total(cls, parts: Iterable["LiveCounts"]) -> "LiveCounts":
        """The sum over processes."""
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
