"""How it starts, keeps connections, loses clients, and ends."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from inference_energy.bench.live.server import KEEP_ALIVE_S
from tests.bench.live_server.servers import LIMIT_S, MODULE, LiveServer

pytestmark = pytest.mark.slow


def connect(server: LiveServer, body: dict[str, object] | None, version: str = "1.1") -> socket.socket:
    """A connection on which a request was sent: POST of a body, or GET /health."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)
    content = json.dumps(body).encode() if body else b""
    line = "POST /v1/completions" if body else "GET /health"
    head = f"{line} HTTP/{version}\r\nHost: m\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


def read_until_closed(connection: socket.socket) -> bytes:
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


LONG = {"prompt": [1], "max_tokens": 2000, "ignore_eos": True, "stream": True}


def test_an_idle_connection_is_closed_after_five_seconds(server: LiveServer) -> None:
    with connect(server, None) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        time.sleep(1)
        used_s = time.monotonic()
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n")  # still open, and used again
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        assert read_until_closed(connection) == b""
        assert KEEP_ALIVE_S <= time.monotonic() - used_s < 8, "counted from its last use"


def test_a_stream_leaves_its_connection_open_for_the_next_request(server: LiveServer) -> None:
    with connect(server, LONG | {"max_tokens": 2}) as connection:
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += connection.recv(65536)
        assert received.count(b"0\r\n\r\n") == 1
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_an_old_client_gets_the_stream_without_chunks(server: LiveServer) -> None:
    with connect(server, LONG | {"max_tokens": 3}, version="1.0") as connection:
        head, _, body = read_until_closed(connection).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    events = body.decode().split("\n\n")
    assert len(events) == 5
    assert [event[:6] for event in events] == ["data: "] * 4 + [""]
    assert events[3] == "data: [DONE]"


def test_a_client_that_goes_is_forgotten(server: LiveServer) -> None:
    aborted = 'vllm:request_success_total,finished_reason="abort"'
    before = server.metrics()[aborted]
    for stream in (True, False):
        connection = connect(server, LONG | {"stream": stream})
        while server.metrics()["vllm:num_requests_running"] < 1:
            time.sleep(0.01)
        connection.close()
    deadline = time.monotonic() + LIMIT_S
    while (found := server.metrics())[aborted] < before + 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert found["vllm:num_requests_running"] == 0
    assert found["vllm:kv_cache_usage_perc"] == 0


def test_a_client_that_does_not_read_holds_nobody_up(server: LiveServer) -> None:
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(LIMIT_S)
        slow.connect(("127.0.0.1", server.port))
        content = json.dumps(LONG | {"prompt": [[1], [2], [3], [4]], "max_tokens": 500}).encode()
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        assert server.complete([1], 20, ignore_eos=True)["usage"]["completion_tokens"] == 20
        while server.metrics()["vllm:num_requests_running"]:
            time.sleep(0.1)
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += slow.recv(65536)
    assert received.count(b"data: {") == 2000


def test_sigterm_cuts_streams_and_ends_it_soon(start: Callable[..., LiveServer]) -> None:
    server = start()
    connections = [connect(server, LONG) for _ in range(5)]
    while server.metrics()["vllm:num_requests_running"] < 5:
        time.sleep(0.01)
    assert server.stop(limit_s=5) == 0
    for connection in connections:
        received = read_until_closed(connection)
        assert received.count(b"data: {") < 2000
        assert not received.endswith(b"0\r\n\r\n")
        connection.close()
    assert "Application shutdown complete." in server.log()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port))


def test_it_can_be_stopped_before_it_listens(start: Callable[..., LiveServer]) -> None:
    server = start(ready=False, faults={"server": {"start_delay_s": 60.0}})
    deadline = time.monotonic() + LIMIT_S
    while not server.truth.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(5) == 0


def test_a_port_in_use_ends_it(server: LiveServer, start: Callable[..., LiveServer]) -> None:
    other = start("--port", str(server.port), ready=False)
    assert other.process.wait(LIMIT_S) == 1
    assert "address already in use" in other.log()
    assert server.request("/health")[0] == 200


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "no-such"], "--model no-such: no folder with a config.json, and none of llama-3.1-8b"),
        (["--model", "llama-3.1-8b", "--max-num-seqs", "0"], "bench: engine.max_num_seqs"),
        (["--model", "llama-3.1-8b", "--tensor_parallel_size=9"], "bench: tensor_parallel"),
        (["--model", "llama-3.1-70b"], "do not fit"),
    ],
)
def test_wrong_settings_end_it_with_a_word(flags: list[str], message: str) -> None:
    command = [sys.executable, "-m", MODULE, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 2
    assert message in done.stderr
