"""Counts of a running cell, for progress: requests by state, tokens, and how fast first tokens came."""

import math
from collections.abc import Iterable
from typing import Self

import msgspec

AFFECTS_RESULTS = False

STEPS_PER_OCTAVE = 8


class Histogram(msgspec.Struct):
    """Durations in buckets, 8 to an octave, so that a quantile is right within 4.5 %.

    Histograms of several processes add up, which quantiles do not.

    Attributes:
        counts: number of durations by bucket.
    """

    counts: dict[int, int] = {}

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


class LiveCounts(msgspec.Struct):
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
        last_token_ns: when the last token known so far came, monotonic: a first one, or the last of a request that has
            ended.
        silent_since_ns: from when on, monotonic, requests waited that got no token any more; None where a token came
            after them.
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
    ttft: Histogram = msgspec.field(default_factory=Histogram)
    first_error: str | None = None
    last_token_ns: int = 0
    silent_since_ns: int | None = None

    def note_token(self, timestamp_ns: int) -> None:
        """Note that the server was alive at a time [ns, monotonic]."""
        if timestamp_ns > self.last_token_ns:
            self.last_token_ns = timestamp_ns
            if self.silent_since_ns is not None and timestamp_ns > self.silent_since_ns:
                self.silent_since_ns = None

    def note_unanswered(self, sent_ns: int, end_ns: int) -> None:
        """Note a request that ended without an answer: the server may be silent since it was sent [ns, monotonic]."""
        if end_ns > self.last_token_ns:
            since_ns = max(sent_ns, self.last_token_ns)
            self.silent_since_ns = since_ns if self.silent_since_ns is None else min(self.silent_since_ns, since_ns)

    @property
    def logged(self) -> int:
        """Requests whose fate is known, sent or not: each has a row in the log."""
        return self.ok + self.failed + self.aborted + self.skipped

    @property
    def in_flight(self) -> int:
        """Requests sent and not ended."""
        return self.sent - self.ended

    @classmethod
    def total(cls, parts: Iterable["LiveCounts"]) -> Self:
        """Return the sum over processes."""
        total, parts = cls(), list(parts)
        for part in parts:
            total.offered += part.offered
            total.sent += part.sent
            total.ended += part.ended
            total.ok += part.ok
            total.failed += part.failed
            total.aborted += part.aborted
            total.skipped += part.skipped
            total.prompt_tokens += part.prompt_tokens
            total.completion_tokens += part.completion_tokens
            total.ttft.update(part.ttft)
            total.first_error = total.first_error or part.first_error
            total.last_token_ns = max(total.last_token_ns, part.last_token_ns)
        silences_ns = [part.silent_since_ns for part in parts if part.silent_since_ns is not None]
        if silences_ns:
            total.silent_since_ns = max(min(silences_ns), total.last_token_ns)
        return total
