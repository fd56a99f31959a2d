"""Metrics of the live server under vLLM's names: the page /metrics and the line logged every ten seconds.

Counting is done here, since it happens with every token; the Prometheus library only writes the page. A step adds to
each metric once, whatever its batch: all requests that decode in it waited equally long for their token.
"""

import asyncio
import logging
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric

from inference_energy.bench.live.live_request import LiveRequest
from inference_energy.bench.truth.engine import BenchEngine

LATENCY_S = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
BETWEEN_TOKENS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
PREEMPTIONS = (1, 2, 3, 4, 5, 10, 20)
"""Bounds of vLLM's buckets."""

REASONS = ("stop", "length", "abort", "error", "repetition")

INTERVAL_S = 10.0


class Histogram:
    """Counts by upper bound, and the sum of the values."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def cumulated(self) -> list[tuple[str, float]]:
        """Return each bound as text with the number of values up to it."""
        total, rows = 0, []
        for bound, count in zip((*(str(float(bound)) for bound in self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows


class EngineMetrics:
    """Metrics of one engine, as vLLM exports them.

    Args:
        engine: the engine.
        model: the first name it is served under.
        mfu: whether to estimate FLOPs and bytes, as `--enable-mfu-metrics` does.
    """

    def __init__(self, engine: BenchEngine, model: str, mfu: bool) -> None:
        self.model = model
        self._engine = engine
        self._labels = {"model_name": model, "engine": "0"}
        self._mfu = mfu
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generated_tokens = 0
        self.flops = self.read_bytes = self.written_bytes = 0.0
        self.finished = dict.fromkeys(REASONS, 0)
        tokens = _one_two_five(engine.physics.engine.max_model_len)
        self.first_token = Histogram(FIRST_TOKEN_S)
        self.between_tokens = Histogram(BETWEEN_TOKENS_S)
        self.per_token = Histogram(BETWEEN_TOKENS_S)
        self.step_tokens = Histogram(STEP_TOKENS)
        self.latency, self.queue, self.inference = (Histogram(LATENCY_S) for _ in range(3))
        self.prefill, self.decode = Histogram(LATENCY_S), Histogram(LATENCY_S)
        self.request_prompt, self.request_generated = Histogram(tokens), Histogram(tokens)
        self.request_computed, self.request_most = Histogram(tokens), Histogram(tokens)
        self.preempted = Histogram(PREEMPTIONS)
        self.step_starts_ns = array("q")
        self.step_ends_ns = array("q")

    def step(self, row: int, start_ns: int, end_ns: int, decoding: int, joined: Sequence[LiveRequest]) -> None:
        """Count a step that has ended.

        Args:
            row: its place in the engine's log.
            start_ns: when it began.
            end_ns: when it ended.
            decoding: requests that got a token and had one before.
            joined: requests whose prompt it completed; their token is not delivered yet.
        """
        log = self._engine.segments
        ends_ns = self.step_ends_ns
        made = decoding + len(joined)
        if decoding:
            self.between_tokens.observe((end_ns - ends_ns[-1]) / 1e9, decoding)
        self.step_starts_ns.append(start_ns)
        ends_ns.append(end_ns)
        self.generated_tokens += made
        prompts, cached = log.prompts[row], log.cached[row]
        self.prompt_tokens += prompts
        self.cached_tokens += cached
        self.step_tokens.observe(prompts - cached + made)
        for request in joined:
            if not request.delivered:
                self.first_token.observe((end_ns - request.arrival_ns) / 1e9)
            elif request.decodes:  # it came back after a preemption
                first, _, steps = request.decodes[-1]
                self.between_tokens.observe((end_ns - ends_ns[first + steps - 1]) / 1e9)
        if self._mfu:
            self._estimate(row)

    def ended(self, request: LiveRequest, reason: str) -> None:
        """Count a request that has left the engine: finished, aborted or failed."""
        self.finished[reason] += 1
        if not request.chunks or not request.first_token_ns:
            return
        begun_ns = self.step_starts_ns[request.chunks[0][0]]
        first_ns, last_ns, tokens = request.first_token_ns, request.last_token_ns, request.generated
        self.latency.observe((last_ns - request.arrival_ns) / 1e9)
        self.queue.observe((begun_ns - request.arrival_ns) / 1e9)
        self.prefill.observe((first_ns - begun_ns) / 1e9)
        self.decode.observe((last_ns - first_ns) / 1e9)
        self.inference.observe((last_ns - begun_ns) / 1e9)
        self.per_token.observe((last_ns - first_ns) / 1e9 / (tokens - 1) if tokens > 1 else 0.0)
        self.request_prompt.observe(request.prompt_tokens)
        self.request_computed.observe(request.prompt_tokens - request.cached_tokens)
        self.request_generated.observe(tokens)
        self.request_most.observe(request.most_tokens)
        self.preempted.observe(request.preemptions)

    def page(self) -> bytes:
        """Return the page in Prometheus' text format."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """Yield all present metrics, for the library."""
        engine, blocks = self._engine, self._engine.blocks
        waiting = float(len(engine.waiting))
        yield self._gauge("num_requests_running", "Requests in the batch.", len(engine.running))
        yield self._gauge("num_requests_waiting", "Requests waiting.", waiting)
        reasons = {"capacity": waiting, "deferred": 0.0}
        yield self._gauge("num_requests_waiting_by_reason", "Requests waiting, by reason.", reasons, "reason")
        yield self._gauge("kv_cache_usage_perc", "Share of the blocks in use; 1 is all.", blocks.used / blocks.total)
        computed = self.prompt_tokens - self.cached_tokens
        sources = {"local_compute": computed, "local_cache_hit": self.cached_tokens, "external_kv_transfer": 0}
        yield self._counter("prompt_tokens", "Prompt tokens.", self.prompt_tokens)
        yield self._counter("prompt_tokens_by_source", "Prompt tokens by source.", sources, "source")
        yield self._counter("prompt_tokens_cached", "Prompt tokens from the cache.", self.cached_tokens)
        yield self._counter("generation_tokens", "Generated tokens.", self.generated_tokens)
        yield self._counter("prefix_cache_queries", "Tokens looked up in the prefix cache.", blocks.queries)
        yield self._counter("prefix_cache_hits", "Tokens found there.", blocks.hits)
        yield self._counter("num_preemptions", "Preemptions.", engine.preemptions)
        yield self._counter("request_success", "Requests that ended.", self.finished, "finished_reason")
        yield self._counter("estimated_flops_per_gpu", "Estimated FLOPs of each GPU.", self.flops)
        yield self._counter("estimated_read_bytes_per_gpu", "Estimated bytes read by each GPU.", self.read_bytes)
        yield self._counter("estimated_write_bytes_per_gpu", "Estimated bytes written.", self.written_bytes)
        for name, histogram in (
            ("time_to_first_token_seconds", self.first_token),
            ("inter_token_latency_seconds", self.between_tokens),
            ("request_time_per_output_token_seconds", self.per_token),
            ("e2e_request_latency_seconds", self.latency),
            ("request_queue_time_seconds", self.queue),
            ("request_prefill_time_seconds", self.prefill),
            ("request_decode_time_seconds", self.decode),
            ("request_inference_time_seconds", self.inference),
            ("request_prompt_tokens", self.request_prompt),
            ("request_generation_tokens", self.request_generated),
            ("request_prefill_kv_computed_tokens", self.request_computed),
            ("request_params_max_tokens", self.request_most),
            ("request_num_preemptions", self.preempted),
            ("iteration_tokens_total", self.step_tokens),
        ):
            family = HistogramMetricFamily(f"vllm:{name}", name.replace("_", " "), labels=list(self._labels))
            family.add_metric(list(self._labels.values()), histogram.cumulated(), histogram.sum)
            yield family

    def _gauge(self, name: str, help_text: str, value: float | dict[str, float], label: str | None = None) -> Metric:
        return self._filled(GaugeMetricFamily(f"vllm:{name}", help_text, labels=self._names(label)), value)

    def _counter(
        self, name: str, help_text: str, value: float | dict[str, float] | dict[str, int], label: str | None = None
    ) -> Metric:
        return self._filled(CounterMetricFamily(f"vllm:{name}", help_text, labels=self._names(label)), value)

    def _names(self, label: str | None) -> list[str]:
        return [*self._labels, *([label] if label else [])]

    def _filled(
        self, family: GaugeMetricFamily | CounterMetricFamily, value: float | dict[str, float] | dict[str, int]
    ) -> Metric:
        labels = list(self._labels.values())
        if isinstance(value, dict):
            for part, amount in value.items():
                family.add_metric([*labels, part], amount)
        else:
            family.add_metric(labels, value)
        return family

    def _estimate(self, row: int) -> None:
        log, physics = self._engine.segments, self._engine.physics
        tokens = log.decoding[row] + log.prefill[row]
        self.flops += physics.token_flops * tokens + physics.sample_flops * log.samples[row]
        self.flops += physics.pair_flops * (log.context[row] + log.pairs[row])
        self.read_bytes += physics.step_bytes + physics.kv_bytes * log.context[row]
        self.written_bytes += physics.kv_bytes * tokens


def _one_two_five(most: int) -> list[float]:
    """Return 1, 2, 5, 10, 20, ... up to `most`, as in vLLM."""
    bounds = [digit * 10.0**power for power in range(len(str(most))) for digit in (1, 2, 5)]
    return [bound for bound in bounds if bound <= most]


async def log_stats(log: logging.Logger, metrics: EngineMetrics, engine: BenchEngine) -> None:
    """Log throughput and state while there is any; runs until it is cancelled."""
    before = (0, 0)
    while True:
        await asyncio.sleep(INTERVAL_S)
        now = (metrics.prompt_tokens, metrics.generated_tokens)
        if now == before and not engine.has_work:
            continue
        prompt, generated = ((after - earlier) / INTERVAL_S for after, earlier in zip(now, before, strict=True))
        before = now
        blocks = engine.blocks
        log.info(
            "Engine 000: Avg prompt throughput: %.1f tokens/s, Avg generation throughput: %.1f tokens/s, "
            "Running: %d reqs, Waiting: %d reqs, GPU KV cache usage: %.1f%%, Prefix cache hit rate: %.1f%%",
            prompt,
            generated,
            len(engine.running),
            len(engine.waiting),
            100 * blocks.used / blocks.total,
            100 * blocks.hits / max(1, blocks.queries),
        )
