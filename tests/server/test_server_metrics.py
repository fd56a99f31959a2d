"""Parsing and polling /metrics."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

from inference_energy.acquire.server.launch import launch
from inference_energy.acquire.server.metrics import MetricsPoller, parse_metrics
from inference_energy.acquire.server.spec import LaunchSpec

PAGE = """\
# HELP python_info Python platform information
# TYPE python_info gauge
python_info{version="3.12"} 1.0
# HELP vllm:num_requests_running Number of requests.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="m",engine="0"} 4.0
# TYPE vllm:request_success_total counter
vllm:request_success_total{finished_reason="stop",engine="0",model_name="m"} 7.0
# TYPE vllm:request_success_created gauge
vllm:request_success_created{finished_reason="stop",engine="0",model_name="m"} 1.7e+09
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="m"} 3.0
vllm:iteration_tokens_total_bucket{engine="0",le="+Inf",model_name="m"} 5.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 5.0
vllm:iteration_tokens_total_sum{engine="0",model_name="m"} 41.0
sglang:token_usage 0.25
http_requests_total{handler="/v1/completions vllm:x"} 9.0
"""


def test_parse() -> None:
    assert parse_metrics(PAGE) == [
        ("vllm:num_requests_running", '{"engine": "0"}', 4.0),
        ("vllm:request_success_total", '{"engine": "0", "finished_reason": "stop"}', 7.0),
        ("vllm:iteration_tokens_total_count", '{"engine": "0"}', 5.0),
        ("vllm:iteration_tokens_total_sum", '{"engine": "0"}', 41.0),
        ("sglang:token_usage", "{}", 0.25),
    ]
    assert parse_metrics("") == []


def test_poller_follows_a_server_and_outlives_it(stub_spec: Callable[..., LaunchSpec]) -> None:
    async def poll() -> tuple[MetricsPoller, int]:
        async with await launch(stub_spec()) as server:
            poller = MetricsPoller(server.base_url, interval_s=0.05)
            poller.start()
            while len({row[0] for row in poller.rows}) < 3:
                await asyncio.sleep(0.01)
            errors_before = poller.errors
            await server.stop()
            while poller.errors < 2:
                await asyncio.sleep(0.01)
            await poller.stop()
            return poller, errors_before

    poller, errors_before = asyncio.run(asyncio.wait_for(poll(), 60))
    assert errors_before == 0
    assert poller.last_error
    times_ns = sorted({row[0] for row in poller.rows})
    assert all(later - earlier > 1_000_000 for earlier, later in pairwise(times_ns))
    assert {row[1] for row in poller.rows} >= {"vllm:num_requests_running", "vllm:generation_tokens_total"}


def test_poller_counts_a_server_that_is_not_there(free_port: int) -> None:
    async def poll() -> MetricsPoller:
        poller = MetricsPoller(f"http://127.0.0.1:{free_port}")
        poller.start()
        await asyncio.sleep(0)
        await poller.stop()
        return poller

    poller = asyncio.run(poll())
    assert poller.errors >= 1
    assert poller.rows == []
