"""Counts for progress: quantiles within their bucket, sums over processes."""

import itertools
import json
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from inference_energy.acquire.load.live_counts import Histogram, LiveCounts


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_quantiles_are_right_within_half_a_bucket(share: float) -> None:
    durations_ns = np.random.default_rng(3).lognormal(np.log(5e7), 1.0, 20_000).astype(np.int64)
    histogram = Histogram()
    for duration_ns in durations_ns.tolist():
        histogram.add(duration_ns)
    assert histogram.quantile_s(share) == pytest.approx(np.quantile(durations_ns, share) / 1e9, rel=0.06)


def test_nothing_counted_has_no_quantile() -> None:
    assert Histogram().quantile_s(0.5) is None


def test_counts_survive_the_pipe_and_add_up() -> None:
    one = LiveCounts(offered=5, sent=4, ended=3, ok=2, failed=1, completion_tokens=20, first_error="no")
    other = LiveCounts(offered=2, sent=2, ended=0, prompt_tokens=7)
    one.ttft.add(1_000_000)
    other.ttft.add(1_000_000)
    other.ttft.add(64_000_000)
    total = LiveCounts.total(
        [msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(one))), LiveCounts, str_keys=True), other]
    )
    assert (total.offered, total.sent, total.in_flight, total.ok, total.failed) == (7, 6, 3, 2, 1)
    assert (total.completion_tokens, total.prompt_tokens, total.first_error) == (20, 7, "no")
    assert sum(total.ttft.counts.values()) == 3
    assert max(total.ttft.counts.values()) == 2


REQUESTS = [(0, 5, 100), (10, None, 100), (60, 95, 100), (70, None, 100), (99, None, 100)]
"""When sent, the last token, and cut off: a request without one is unanswered."""


def counts_of(requests: Sequence[tuple[int, int | None, int]]) -> LiveCounts:
    counts = LiveCounts()
    for sent_ns, token_ns, end_ns in requests:
        if token_ns is not None:
            counts.note_token(token_ns)
        counts.note_unanswered(sent_ns, end_ns)
    return counts


def test_a_server_is_silent_since_its_last_token_or_the_first_request_after_it() -> None:
    assert counts_of([(10, 40, 100), (20, None, 100)]).silent_since_ns == 40
    assert counts_of([(10, None, 100), (20, None, 100)]).silent_since_ns == 10
    assert counts_of([(10, 40, 40)]).silent_since_ns is None, "it had its token at its end"
    recovered = counts_of([(10, None, 50)])
    recovered.note_token(60)
    assert recovered.silent_since_ns is None


def test_silence_depends_neither_on_the_order_of_requests_nor_on_their_processes() -> None:
    for order in itertools.permutations(REQUESTS):
        assert counts_of(order).silent_since_ns == 95
        assert LiveCounts.total(counts_of(part) for part in (order[:2], order[2:])).silent_since_ns == 95
