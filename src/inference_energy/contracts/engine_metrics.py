"""Metric names of the serving engines for the quantities that the toolkit reads from /metrics, one table an engine.

vLLM's names are those of its versions 0.25 to 0.32, SGLang's those of its documentation (Production Metrics) and of
`sglang/srt/metrics/collector.py`. The names on the page show which engine it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Engine:
    """The names of one engine's metrics, without its prefix; None for a metric that it lacks.

    Attributes:
        name: name of the engine.
        prefix: beginning of its metric names.
        generated, prompt, cached: counters of tokens; `cached` counts the `prompt` tokens from the prefix cache.
        finished: counter of requests that ended.
        finish_label: label of `finished` that holds the finish reason; None where `aborted` counts the aborted ones.
        aborted: counter of requests that were aborted; None where `finish_label` tells them apart.
        preemptions: counter of requests that lost their place and were recomputed.
        steps: counter of engine steps.
        running, waiting: gauges of requests.
        kv_use: gauge of the share of the KV cache in use, from 0 to 1.
        queue_time, ttft: histograms in s, without `_bucket`, `_sum`, `_count`.
    """

    name: str
    prefix: str
    generated: str
    prompt: str
    cached: str
    finished: str
    finish_label: str | None
    aborted: str | None
    preemptions: str | None
    steps: str | None
    running: str
    waiting: str
    kv_use: str
    queue_time: str
    ttft: str

    def full(self, quantity: str) -> str | None:
        """Return the full name of a quantity, an attribute of this class; None where the engine lacks it."""
        name = getattr(self, quantity)
        return None if name is None else self.prefix + name

    @property
    def samples(self) -> set[str]:
        """Return the full names of all samples in the table, histograms by their `_sum`, `_count` and `_bucket`."""
        names: set[str] = set()
        for field in fields(self):
            name = getattr(self, field.name)
            if field.name in _NO_METRICS or name is None:
                continue
            ends = ("_sum", "_count", "_bucket") if field.name in _HISTOGRAMS else ("",)
            names |= {self.prefix + name + end for end in ends}
        return names


_NO_METRICS = ("name", "prefix", "finish_label")
_HISTOGRAMS = ("queue_time", "ttft")

VLLM = Engine(
    name="vLLM",
    prefix="vllm:",
    generated="generation_tokens_total",
    prompt="prompt_tokens_total",
    cached="prompt_tokens_cached_total",
    finished="request_success_total",
    finish_label="finished_reason",
    aborted=None,
    preemptions="num_preemptions_total",
    steps="iteration_tokens_total_count",
    running="num_requests_running",
    waiting="num_requests_waiting",
    kv_use="kv_cache_usage_perc",
    queue_time="request_queue_time_seconds",
    ttft="time_to_first_token_seconds",
)

SGLANG = Engine(
    name="SGLang",
    prefix="sglang:",
    generated="generation_tokens_total",
    prompt="prompt_tokens_total",
    cached="cached_tokens_total",
    finished="num_requests_total",
    finish_label=None,
    aborted="num_aborted_requests_total",
    preemptions="num_retracted_requests_total",
    steps=None,
    running="num_running_reqs",
    waiting="num_queue_reqs",
    kv_use="token_usage",
    queue_time="queue_time_seconds",
    ttft="time_to_first_token_seconds",
)

ENGINES = (VLLM, SGLANG)


def engine_of(names: Iterable[str]) -> Engine:
    """Return the engine with the most names present; vLLM, whose counters are then missing, where there are none."""
    present = set(names)
    return max(ENGINES, key=lambda engine: len(engine.samples & present))
