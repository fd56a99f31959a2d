"""Servers for load clients, light enough not to matter; they answer any completion.

    python server.py burst|timed|held [--tokens N] [--count N] [--truth FILE] [--certificate FILE]

`burst` writes each answer of `--tokens` tokens in one go, an HTTP chunk an event as vLLM does. `timed` sends the first
token 50 ms after a request has arrived and the next ones 10 ms apart, and notes when each was written; an answer of
more than `BURST_FROM` tokens comes in one go. `held` answers once `--count` requests are there. Prints its
port; on SIGTERM it writes what it noted.
"""

import argparse
import asyncio
import json
import re
import resource
import signal
import ssl
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from inference_energy.acquire.load.pacer import Pacer
from inference_energy.acquire.load.worker_runtime import tune_process

FIRST_NS, NEXT_NS = 50_000_000, 10_000_000
BURST_FROM = 1000
HOLD_S = 1.0
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
MODELS = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 22\r\n\r\n{"data":[{"id": "m"}]}'
NOTHING = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
"""To all else that clients ask, such as metrics."""

_LENGTH = re.compile(rb"content-length: ?(\d+)", re.IGNORECASE).search
_TOKENS = re.compile(rb'"max_tokens": ?(\d+)').search
_KEY = re.compile(rb'"prompt": ?\[(\d+)').search


@dataclass(slots=True)
class Request:
    """A request as it arrived, and when its tokens were sent; `key` is the prompt's first token id."""

    serial: int
    key: int | None
    tokens: int
    arrival_ns: int
    send: Callable[[bytes], None]
    sent_ns: "array[int]" = field(default_factory=lambda: array("q"))


def event(text: str, finish_reason: str | None = None) -> bytes:
    """One token as vLLM sends it."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason, "stop_reason": None}
    return _framed({**_COMMON, "choices": [choice]})


def ending(prompt_tokens: int, tokens: int) -> bytes:
    """Usage and the end."""
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens + tokens, "completion_tokens": tokens}
    return _framed({**_COMMON, "choices": [], "usage": usage}) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


_COMMON = {"id": "cmpl-0123456789abcdef0123456789abcdef", "object": "text_completion", "created": 1, "model": "m"}


def _framed(content: object) -> bytes:
    return _chunk(b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(tokens: int) -> bytes:
    """An answer after its head."""
    words = [event(f" word{number}") for number in range(tokens - 1)]
    return b"".join([*words, event(" end", "length"), ending(16, tokens)])


class Burst:
    """Answers at once."""

    def __init__(self, tokens: int) -> None:
        self._answer = HEAD + whole(tokens)

    def take(self, request: Request) -> None:
        """A request has arrived."""
        request.send(self._answer)


class Timed:
    """Answers token by token; the first is ` r` and the request's serial number."""

    def __init__(self) -> None:
        self._pacer = Pacer()
        self._word = event(" word")
        self._bursts: dict[int, bytes] = {}
        self.requests: list[Request] = []

    def take(self, request: Request) -> None:
        """A request has arrived."""
        self.requests.append(request)
        request.send(HEAD)
        self._pacer.call_at(request.arrival_ns + FIRST_NS, self._next, request)

    def _next(self, request: Request) -> None:
        sent = request.sent_ns
        if request.tokens > BURST_FROM:
            if request.tokens not in self._bursts:
                self._bursts[request.tokens] = whole(request.tokens)
            data = self._bursts[request.tokens]
        elif len(sent) + 1 == request.tokens:
            data = event(" end", "length") + ending(16, request.tokens)
        else:
            data = self._word if sent else event(f" r{request.serial}")
        sent.append(time.monotonic_ns())
        request.send(data)
        if len(sent) < request.tokens <= BURST_FROM:
            self._pacer.call_at(request.arrival_ns + FIRST_NS + len(sent) * NEXT_NS, self._next, request)


class Held:
    """Answers a second after all are there."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._answer = HEAD + whole(2)
        self.requests: list[Request] = []

    def take(self, request: Request) -> None:
        """A request has arrived."""
        self.requests.append(request)
        if len(self.requests) == self._count:
            asyncio.get_running_loop().call_later(HOLD_S, self._release)

    def _release(self) -> None:
        for each in self.requests:
            each.sent_ns.append(time.monotonic_ns())
            each.send(self._answer)


class Connection(asyncio.Protocol):
    """HTTP as far as load clients speak it."""

    serial = 0

    def __init__(self, take: Callable[[Request], None]) -> None:
        self._take = take
        self._parts: list[bytes] = []
        self._have = self._want = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open."""
        assert isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "write")
        self._send: Callable[[bytes], None] = transport.write

    def data_received(self, data: bytes) -> None:
        """Collect until a request is complete."""
        self._parts.append(data)
        self._have += len(data)
        if self._want > self._have:
            return
        held = b"".join(self._parts)
        end = held.find(b"\r\n\r\n") + 4
        length = _LENGTH(held, 0, end)
        if end < 4 or held.startswith(b"GET"):
            self._parts, self._have, self._want = ([held], len(held), 0) if end < 4 else ([], 0, 0)
            if end >= 4:
                self._send(MODELS if b" /v1/models" in held else NOTHING)
            return
        self._want = end + (int(length[1]) if length else 0)
        if self._want > len(held):
            self._parts = [held]
            return
        self._parts, self._have, self._want = [], 0, 0
        Connection.serial += 1
        key, tokens = _KEY(held, end), _TOKENS(held, end)
        self._take(
            Request(
                Connection.serial,
                int(key[1]) if key else None,
                int(tokens[1]) if tokens else 1,
                time.monotonic_ns(),
                self._send,
            )
        )


async def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=("burst", "timed", "held"))
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--certificate", type=Path)
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    service = Burst(given.tokens) if given.kind == "burst" else Timed() if given.kind == "timed" else Held(given.count)
    tls = None
    if given.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(given.certificate)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(lambda: Connection(service.take), "127.0.0.1", 0, backlog=4096, ssl=tls)
    tune_process()
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    if given.truth and not isinstance(service, Burst):
        rows = [[each.serial, each.key, each.arrival_ns, list(each.sent_ns)] for each in service.requests]
        given.truth.write_text(json.dumps(rows))


if __name__ == "__main__":
    uvloop.run(main())
