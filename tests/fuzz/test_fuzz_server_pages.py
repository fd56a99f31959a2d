"""Pages of a server are read or refused with an error of their own, whatever they hold."""

import numpy as np
import pandas as pd
from fuzzing import damaged, fuzz

from inference_energy.acquire.server.metrics import PageReader, TooManySeriesError
from inference_energy.acquire.server.pages import LONGEST_NAME_CHARACTERS, listed_models, stated_version
from inference_energy.analysis.server_metrics import ServerMetrics, queue_times

S = 1_000_000_000
METRICS = [
    b"""# HELP vllm:num_requests_running Number of requests.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
vllm:generation_tokens_total{engine="0",model_name="m"} 700.0 1700000000000
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 7.0
vllm:request_queue_time_seconds_bucket{engine="0",le="0.5",model_name="m"} 3.0
vllm:request_queue_time_seconds_bucket{engine="0",le="+Inf",model_name="m"} 5.0
vllm:request_queue_time_seconds_count{engine="0",model_name="m"} 5.0
vllm:request_queue_time_seconds_sum{engine="0",model_name="m"} 4.5
""",
    b"""sglang:num_running_reqs{model_name="m",tp_rank="0",dp_rank="1"} 8.0\r
sglang:num_running_reqs{model_name="m",tp_rank="1",dp_rank="1"} 8.0\r
sglang_token_usage 0.25\r
sglang:generation_tokens_total{model_name="a \\"b\\" \\\\"} 1e3\r
""",
]
LISTS = [
    b'{"object": "list", "data": [{"id": "a/b", "created": 1}, {"id": "c", "permission": [{"x": null}]}]}',
    b'{"version": "0.25.1+cpu"}',
]


def test_pages_of_metrics_are_read_or_refused_and_make_figures_or_none():
    def check(content: bytes) -> None:
        reader = PageReader(max_series=60)
        rows = []
        for at, page in enumerate((METRICS[0], content, METRICS[0] + content)):
            try:
                numbers, values = reader.read(page)
            except (ValueError, TooManySeriesError) as error:
                assert len(str(error)) < 500
                continue
            rows += [
                (at * S, reader.series[number].name, reader.series[number].labels, value)
                for number, value in zip(numbers, values, strict=True)
            ]
        metrics = ServerMetrics(pd.DataFrame(rows, columns=["timestamp_ns", "name", "labels", "value"]), "m")
        figures = queue_times(metrics, 0, 2 * S, [], [])
        numbers = [figure.value for figure in figures.values() if figure.value is not None]
        for quantity in ("running", "kv_use", "waiting"):
            numbers += metrics.block_means(quantity, np.array([0, 3 * S])) or []
        for quantity in ("generated", "prompt", "cached"):
            numbers += metrics.rise(quantity, 0, 2 * S) or []
        for series in metrics.labelled("finished", metrics.engine.finish_label or "x").values():
            numbers += series[1].tolist()
        assert all(np.isfinite(number) for number in numbers), numbers

    fuzz(damaged(METRICS), check)


def test_lists_of_models_and_versions_are_read_or_refused():
    def check(content: bytes) -> None:
        stated_version(content)
        try:
            names = listed_models(content)
        except ValueError as error:
            assert len(str(error)) < 500
            return
        for name in names:
            assert 0 < len(name) <= LONGEST_NAME_CHARACTERS
            name.encode()

    fuzz(damaged(LISTS), check)
