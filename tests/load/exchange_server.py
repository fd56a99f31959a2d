"""A server on loopback whose every byte the test decides, and what clients of it share."""

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from inference_energy.acquire.load.http.client import LoadClient, RequestResult
from inference_energy.acquire.load.http.request import (
    ClientSettings,
    PlannedRequest,
    RequestRecord,
    WorkloadSettings,
    prompt_fragment,
)

COMPLETIONS = WorkloadSettings()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
LAST_CHUNK = b"0\r\n\r\n"


def event(content: Any) -> bytes:
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"


def token(text: str, finish_reason: str | None = None, **more: Any) -> bytes:
    return event({"choices": [{"index": 0, "text": text, "finish_reason": finish_reason}], **more})


def usage_event(usage: dict[str, Any] | None = None) -> bytes:
    return event({"choices": [], "usage": usage or USAGE})


DONE = b"data: [DONE]\n\n"
GOOD = token("a") + token("b", "length") + usage_event() + DONE


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(status: str, body: bytes, *headers: str) -> bytes:
    """An answer with a length."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


GOOD_ANSWER = HEAD + chunk(GOOD) + LAST_CHUNK


@dataclass
class Exchange:
    """A request as the server got it."""

    connection: int
    number: int
    head: str
    body: Any
    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader

    async def write(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(pause_s)

    def reset(self) -> None:
        self.writer.transport.abort()

    async def peer_is_gone(self, limit_s: float = 10.0) -> bool:
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(1), limit_s) == b""
        return True


Script = Callable[[Exchange], Awaitable[None]]


@dataclass
class Server:
    """What came, and where."""

    url: str
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0
    gone: int = 0


@contextlib.asynccontextmanager
async def serving(
    script: Script, *, idle_s: float | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """Serve each request with the script; a connection idle for `idle_s` is closed, as uvicorn does after 5 s."""
    server = Server("")
    tasks: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        number, server.connections = server.connections, server.connections + 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError, asyncio.CancelledError):
            while not writer.is_closing():
                head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), idle_s)).decode()
                length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                exchange = Exchange(number, len(server.exchanges), head, body, writer, reader)
                server.exchanges.append(exchange)
                await script(exchange)
        server.gone += 1
        writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls, limit=2**24)
    server.url = f"http{'s' if tls else ''}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def good(exchange: Exchange) -> None:
    await exchange.write(GOOD_ANSWER)


def says(*pieces: bytes, pause_s: float = 0.0) -> Script:
    """A script that writes the same bytes to everyone."""

    async def script(exchange: Exchange) -> None:
        await exchange.write(*pieces, pause_s=pause_s)

    return script


def then_closes(*pieces: bytes) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.write(*pieces)
        exchange.writer.close()

    return script


class Seen:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.chunks: list[tuple[int, int, int | None]] = []
        self.ended_with: list[tuple[RequestRecord, str | None]] = []

    def sent(self, record: RequestRecord) -> None:
        self.calls.append(("sent", record.request_id))

    def first_token(self, record: RequestRecord) -> None:
        self.calls.append(("first_token", record.request_id))

    def chunk(self, record: RequestRecord, timestamp_ns: int, events: int, completion_tokens: int | None) -> None:
        self.chunks.append((timestamp_ns, events, completion_tokens))

    def ended(self, record: RequestRecord, text: str | None) -> None:
        self.calls.append(("ended", record.request_id))
        self.ended_with.append((record, text))


def planned(number: int = 0, api: Any = "completions", **options: Any) -> PlannedRequest:
    prompt = prompt_fragment(api, text='Say "hello"\n')
    return PlannedRequest(number, "cell", 100 + number, prompt, 2, **options)


@contextlib.asynccontextmanager
async def client_of(
    *endpoints: str, transport: Any = "plain", seen: Seen | None = None, **settings: Any
) -> AsyncIterator[LoadClient]:
    chosen = ClientSettings(**{"transport": transport, "request_timeout_s": 20.0, **settings})
    async with LoadClient(endpoints, "m", chosen, observer=seen or Seen()) as client:
        yield client


async def send(
    client: LoadClient, number: int = 0, workload: WorkloadSettings = COMPLETIONS, **options: Any
) -> RequestResult:
    return await client.send(planned(number, workload.api, **options), workload, time.monotonic_ns(), 0)


def one(script: Script, transport: str, workload: WorkloadSettings = COMPLETIONS, **settings: Any) -> RequestRecord:
    """The record of a single request."""

    async def run() -> RequestRecord:
        async with serving(script) as server, client_of(server.url, transport=transport, **settings) as client:
            return (await send(client, 0, workload)).record

    return asyncio.run(run())
