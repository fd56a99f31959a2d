"""Counts for progress: quantiles within their bucket, sums over processes."""

import json

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
