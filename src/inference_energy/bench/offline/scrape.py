"""The server's metrics as a poller would have read them, from the log of what the engine did."""

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from inference_energy.bench.truth.segments import Floats, Integers, Segments


def scrapes(
    engines: Sequence[tuple[Segments, int]],
    start_ns: int,
    end_ns: int,
    interval_s: float,
    also_ns: Sequence[int] = (),
) -> pd.DataFrame:
    """server_metrics.parquet of a session, under vLLM's names; one engine label a node.

    Args:
        engines: each engine's log and its number of blocks.
        start_ns: the first scrape.
        end_ns: no scrape after it, but for a last one at it.
        interval_s: between scrapes.
        also_ns: further scrapes, as there are before each cell and after its drain.
    """
    grid_ns = np.arange(start_ns, end_ns, round(interval_s * 1e9))
    times_ns = np.unique(np.concatenate((grid_ns, np.asarray(also_ns, dtype=np.int64), [end_ns])))
    frames = []
    for number, (log, blocks) in enumerate(engines):
        labels = json.dumps({"engine": str(number)}, sort_keys=True)
        for name, values in _series(log, blocks, times_ns).items():
            frames.append(pd.DataFrame({"timestamp_ns": times_ns, "name": name, "labels": labels, "value": values}))
    return pd.concat(frames).sort_values("timestamp_ns", kind="stable", ignore_index=True)


def _series(log: Segments, blocks: int, times_ns: Integers) -> dict[str, Floats]:
    ends_ns = log.integers("end_ns")
    done = np.searchsorted(ends_ns, times_ns, side="right")
    now = np.minimum(done, len(ends_ns) - 1)
    in_step = log.integers("sequences")[now] > 0

    def total(column: str) -> Floats:
        return np.concatenate(([0], np.cumsum(log.integers(column))))[done].astype(np.float64)

    def gauge(column: str) -> Floats:
        return np.where(in_step, log.integers(column)[now], 0).astype(np.float64)

    steps = np.concatenate(([0], np.cumsum(log.integers("sequences") > 0)))[done].astype(np.float64)
    return {
        "vllm:num_requests_running": gauge("running"),
        "vllm:num_requests_waiting": gauge("waiting"),
        "vllm:kv_cache_usage_perc": gauge("blocks") / blocks,
        "vllm:generation_tokens_total": total("samples"),
        "vllm:prompt_tokens_total": total("prompts"),
        "vllm:prompt_tokens_cached_total": total("cached"),
        "vllm:num_preemptions_total": total("preemptions"),
        "vllm:iteration_tokens_total_count": steps,
        "vllm:iteration_tokens_total_sum": total("samples") + total("prefill"),
    }
