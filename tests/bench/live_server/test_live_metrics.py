"""/metrics agrees with what clients were given."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.bench.live_server.servers import LiveServer

pytestmark = pytest.mark.slow

PROMPTS = [[number % 3, *range(40)] for number in range(12)]


def test_counters_are_the_sums_of_usage(start: Callable[..., LiveServer]) -> None:
    server = start("--enable-prompt-tokens-details", "--max-num-seqs", "4", "--max-num-batched-tokens", "64")
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda prompt: server.complete(prompt, 30), PROMPTS))
    usages = [answer["usage"] for answer in answers]
    prompt = sum(usage["prompt_tokens"] for usage in usages)
    generated = sum(usage["completion_tokens"] for usage in usages)
    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    found = server.metrics()
    assert found["vllm:prompt_tokens_total"] == prompt
    assert found["vllm:generation_tokens_total"] == generated
    assert found["vllm:prompt_tokens_cached_total"] == cached == found["vllm:prefix_cache_hits_total"] > 0
    assert found["vllm:prefix_cache_queries_total"] == prompt
    assert found['vllm:prompt_tokens_by_source_total,source="local_compute"'] == prompt - cached
    assert found['vllm:prompt_tokens_by_source_total,source="local_cache_hit"'] == cached
    reasons = [answer["choices"][0]["finish_reason"] for answer in answers]
    for reason in ("stop", "length"):
        assert found[f'vllm:request_success_total,finished_reason="{reason}"'] == reasons.count(reason)
    assert found["vllm:iteration_tokens_total_sum"] == prompt - cached + generated
    assert found["vllm:time_to_first_token_seconds_count"] == 12
    assert found["vllm:inter_token_latency_seconds_count"] == generated - 12
    assert found['vllm:e2e_request_latency_seconds_bucket,le="+Inf"'] == 12
    inference_s = found["vllm:request_prefill_time_seconds_sum"] + found["vllm:request_decode_time_seconds_sum"]
    assert abs(found["vllm:request_inference_time_seconds_sum"] - inference_s) < 1e-6
    latency_s = found["vllm:request_queue_time_seconds_sum"] + inference_s
    assert abs(found["vllm:e2e_request_latency_seconds_sum"] - latency_s) < 1e-6
    assert found["vllm:request_queue_time_seconds_sum"] > 0  # only four run at a time
    assert found["vllm:request_prompt_tokens_sum"] == prompt
    assert found["vllm:request_generation_tokens_sum"] == generated
    assert found["vllm:estimated_flops_per_gpu_total"] == 0
    assert found["vllm:num_requests_running"] == found["vllm:kv_cache_usage_perc"] == 0


def test_gauges_show_what_runs_and_waits(start: Callable[..., LiveServer]) -> None:
    server = start("--max-num-seqs", "2")
    with ThreadPoolExecutor(5) as pool:
        running = [pool.submit(server.complete, [number], 200, ignore_eos=True) for number in range(5)]
        while (found := server.metrics())["vllm:num_requests_waiting"] < 3:
            assert not all(answer.done() for answer in running)
        assert found["vllm:num_requests_running"] == 2
        assert 0 < found["vllm:kv_cache_usage_perc"] < 0.01


def test_flops_and_bytes_when_asked_for(start: Callable[..., LiveServer]) -> None:
    server = start("--enable-mfu-metrics")
    server.complete([1] * 100, 1)
    found = server.metrics()
    weights = 7e9  # of the layers, about
    assert 0.9 < found["vllm:estimated_flops_per_gpu_total"] / (2 * weights * 100) < 1.1
    assert 0.9 < found["vllm:estimated_read_bytes_per_gpu_total"] / (2 * weights) < 1.1


def test_preemptions_are_counted(start: Callable[..., LiveServer]) -> None:
    server = start("--num-gpu-blocks-override", "130", "--max-model-len", "2048")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: server.complete([number] * 400, 200, ignore_eos=True), range(4)))
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [200] * 4
    found = server.metrics()
    assert found["vllm:num_preemptions_total"] == found["vllm:request_num_preemptions_sum"] > 0
    assert found["vllm:generation_tokens_total"] == 800
    assert found["vllm:inter_token_latency_seconds_count"] == 796
    assert found["vllm:prompt_tokens_total"] == 1600
