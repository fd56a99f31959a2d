"""Each fault of the server, as a client meets it."""

import http.client
import json
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from inference_energy.bench.live.truth_files import STEPS, read_truth
from inference_energy.bench.truth.power_trace import TRACE_DTYPE
from tests.bench.live_server.servers import LiveServer

pytestmark = pytest.mark.slow

STREAM = {"prompt": [1, 2, 3], "max_tokens": 20, "ignore_eos": True, "stream_options": {"include_usage": True}}
BROKEN = (http.client.HTTPException, OSError)


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def hangs(server: LiveServer) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=1)
    try:
        connection.request("GET", "/health")
        connection.getresponse()
    except TimeoutError:
        return True
    finally:
        connection.close()
    return False


def faulty(start: Callable[..., LiveServer], **faults: Any) -> LiveServer:
    return start(faults={"server": faults})


def test_a_slow_start(start: Callable[..., LiveServer]) -> None:
    began = time.monotonic()
    server = faulty(start, start_delay_s=1.5)
    assert time.monotonic() - began >= 1.5
    assert server.request("/health")[0] == 200


def test_crash_after_a_time(start: Callable[..., LiveServer]) -> None:
    server = faulty(start, crash_after_s=0.5)
    assert server.process.wait(20) == -signal.SIGKILL


@pytest.mark.parametrize("stream", [True, False])
def test_crash_in_the_middle_of_a_request(start: Callable[..., LiveServer], stream: bool) -> None:
    server = faulty(start, crash_at_request=2)
    server.stream(STREAM)
    with pytest.raises(BROKEN):
        server.request("/v1/completions", STREAM | {"stream": stream} | ({} if stream else {"stream_options": None}))
    assert server.process.wait(20) == -signal.SIGKILL


def test_a_hang_ignores_sigterm_but_can_be_killed(start: Callable[..., LiveServer]) -> None:
    server = faulty(start, hang_after_s=0.3)
    until(lambda: hangs(server))
    server.process.send_signal(signal.SIGTERM)
    hung_ns, path = time.monotonic_ns(), server.node.traces / f"{server.process.pid}.trace"
    # Rows come every half second: the second one is from after the signal.
    until(lambda: (np.fromfile(path, dtype=TRACE_DTYPE)["start_ns"] > hung_ns).sum() >= 2)  # power is told to the last
    assert server.process.poll() is None
    server.process.kill()
    assert server.process.wait(20) == -signal.SIGKILL
    assert not np.isnan(np.fromfile(path, dtype=TRACE_DTYPE)["gpu_w"]).any()
    steps = read_truth(server.truth, STEPS).to_pandas()
    assert steps["end_ns"].iloc[-1] > hung_ns


def test_every_nth_request_is_refused(start: Callable[..., LiveServer]) -> None:
    server = faulty(start, error_500_every=3)
    answers = [server.request("/v1/completions", {"prompt": [1], "max_tokens": 1}) for _ in range(6)]
    assert [status for status, _ in answers] == [200, 200, 500, 200, 200, 500]
    error = json.loads(answers[2][1])["error"]
    assert (error["type"], error["code"]) == ("InternalServerError", 500)


def test_an_error_within_the_stream(start: Callable[..., LiveServer]) -> None:
    server = faulty(start, error_event_every=2)
    assert len(server.stream(STREAM)) == 22
    events = server.stream(STREAM)
    assert len(events) == 9 + 2
    assert events[-2]["error"]["code"] == 500
    assert events[-1] == "[DONE]"
    assert server.metrics()['vllm:request_success_total,finished_reason="error"'] == 1
    assert len(server.stream(STREAM)) == 22
    assert server.request("/v1/completions", {"prompt": [1]})[0] == 500


def test_an_error_ends_all_prompts_of_a_request(start: Callable[..., LiveServer]) -> None:
    server = faulty(start, error_event_every=1)
    events = server.stream(STREAM | {"prompt": [[1], [2], [3]]})
    assert "error" in events[-2]
    assert events[-1] == "[DONE]"
    assert server.metrics()['vllm:request_success_total,finished_reason="error"'] == 3


def test_a_dropped_connection(start: Callable[..., LiveServer]) -> None:
    server = faulty(start, disconnect_every=2)
    for _ in range(2):
        server.stream(STREAM)
        with pytest.raises(BROKEN):
            server.stream(STREAM)
    until(lambda: server.metrics()['vllm:request_success_total,finished_reason="abort"'] == 2)
    assert server.metrics()["vllm:num_requests_running"] == 0


def test_a_stalled_stream_brings_all_its_tokens_late(start: Callable[..., LiveServer]) -> None:
    server = faulty(start, stall_every=2, stall_s=1.0)
    took_s = []
    for _ in range(2):
        began = time.monotonic()
        events = server.stream(STREAM)
        took_s.append(time.monotonic() - began)
        assert len(events) == 22
        assert events[-2]["usage"]["completion_tokens"] == 20
    assert took_s[1] >= 1.0
    assert server.metrics()["vllm:e2e_request_latency_seconds_sum"] < sum(took_s) - 0.5  # the engine went on


def test_a_stalled_answer(start: Callable[..., LiveServer]) -> None:
    server = faulty(start, stall_every=1, stall_s=0.7)
    began = time.monotonic()
    assert server.complete([1], 3)["usage"]["completion_tokens"] == 3
    assert time.monotonic() - began > 0.7
