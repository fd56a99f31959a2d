"""Metric names of the serving engines for the quantities that the toolkit reads from /metrics, one table an engine.

vLLM's names are those of its versions 0.25 to 0.32, SGLang's those of its documentation (Production Metrics) and of
`sglang/srt/metrics/collector.py`. The names on the page show which engine it is. Both also occur with `_` in place of
the colon, as collectors and newer versions write them.

One quantity has several series where an engine has ranks, replicas or models. `group_series` says which of them show
the same number and which add up, from the meaning of their labels: those of vLLM (`vllm/v1/metrics/loggers.py`), of
SGLang (`SchedulerMetricsCollector`), and the usual ones of routers. A label of unknown meaning is never summed over.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace


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

ENGINES = (VLLM, SGLANG, replace(VLLM, prefix="vllm_"), replace(SGLANG, prefix="sglang_"))

MODEL = "model_name"
"""Label of the model that a series is about. Two models on one server have a series each."""

COPIES = frozenset({"tp_rank", "attn_tp_rank", "pp_rank", "ep_rank", "moe_ep_rank", "cp_rank", "attn_cp_rank"})
"""Labels of ranks that work on the same requests: tensor, pipeline, expert and context parallel ones."""

REPLICAS = frozenset({"engine", "dp_rank", "replica", "replica_id", "instance", "pod", "endpoint"})
"""Labels of engines with requests of their own: their counts add up."""

PARTS = frozenset({"finished_reason", "cache_source", "priority"})
"""Labels that split a count into parts, which add up."""

TOTAL = ("priority", "")
"""A label with the value that marks the sum over its other values, as SGLang writes it with priority scheduling."""

GAUGES = frozenset({"running", "waiting", "kv_use"})
"""Quantities that rise and fall; the others are counters."""

SHARES = frozenset({"kv_use"})
"""Quantities that are shares of an engine's own capacity: over replicas their mean is taken, never their sum."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """How the series of one quantity make one number.

    Attributes:
        groups: positions of series; those of one group show the same number, and the groups add up.
        others: positions of the series of other models.
        problem: why they make no number, a clause about the series; empty where they do.
    """

    groups: tuple[tuple[int, ...], ...] = ()
    others: tuple[int, ...] = ()
    problem: str = ""


def group_series(labels: Sequence[Mapping[str, str]], model: str | None = None) -> Grouping:
    """Group the series of one quantity by their labels.

    Args:
        labels: of each series, all different.
        model: the model that is measured. It matters only where there are several: one alone may be called by another
            name than in requests, such as the first of several aliases, or the base of an adapter.
    """
    kept = list(range(len(labels)))
    others: tuple[int, ...] = ()
    models = {entry.get(MODEL) for entry in labels}
    if len(models) > 1:
        if model is None or model not in models:
            names = ", ".join(sorted(str(name)[:100] for name in models)[:5])
            return Grouping(problem=f"they are of several models ({names}), none of which is {model or 'named'}")
        others = tuple(place for place in kept if labels[place].get(MODEL) != model)
        kept = [place for place in kept if labels[place].get(MODEL) == model]
    kept = [place for place in kept if labels[place].get(TOTAL[0]) == TOTAL[1]] or kept
    keys = sorted({key for place in kept for key in labels[place]} - {MODEL})
    differing = [key for key in keys if len({labels[place].get(key) for place in kept}) > 1]
    for key in differing:
        if key not in COPIES | REPLICAS | PARTS:
            return Grouping((), others, f"they differ in the label `{key[:100]}`, whose meaning is not known")
        if key not in COPIES and not all(key in labels[place] for place in kept):
            return Grouping((), others, f"some have the label `{key}` and some have not, so one may be the others' sum")
    groups: dict[tuple[str, ...], list[int]] = {}
    for place in kept:
        groups.setdefault(tuple(labels[place][key] for key in differing if key not in COPIES), []).append(place)
    return Grouping(tuple(map(tuple, groups.values())), others)


def engine_of(names: Iterable[str]) -> Engine:
    """Return the engine with the most names present; vLLM, whose counters are then missing, where there are none."""
    present = set(names)
    return max(ENGINES, key=lambda engine: len(engine.samples & present))
