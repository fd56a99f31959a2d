"""The fast transport: httptools on the event loop's own sockets, one callback a chunk.

A `Connection` carries one request at a time and parses its answer as it arrives, a `Pool` keeps idle connections of
one endpoint, and `PlainTransport` sends.
"""

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar, cast
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from inference_energy.acquire.load.http.content_coding import Answer, PackedAnswer
from inference_energy.acquire.load.http.sse import ExchangeError, SseAnswer
from inference_energy.acquire.load.http.transport import (
    REDIRECTS,
    SERVER_CLOSED,
    RedirectError,
    connect_failure,
    request_headers,
    tls_context,
)
from inference_energy.contracts.load_client import ClientSettings
from inference_energy.contracts.outside import megabytes

_BODY_HEADERS = (b"content-length", b"transfer-encoding")

MAX_HEAD_BYTES = 2**20
"""Bytes that may come without a byte of the body: headers, and whatever else the parser takes in without an end."""


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection. It parses in the callback that brings the bytes: no task wakes before the answer's end.

    Attributes:
        is_open: whether another request can be sent on it.
    """

    __slots__ = (
        "_answer",
        "_bare_bytes",
        "_body",
        "_coding",
        "_delimited",
        "_headers_complete",
        "_location",
        "_loop",
        "_parser",
        "_parts",
        "_redirect",
        "_transport",
        "_used",
        "_waiter",
        "is_open",
        "on_body",
    )

    def __init__(self) -> None:
        self.is_open = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self.on_body: Callable[[bytes], None] = self._parts.append  # the parser looks this up once
        self._parser: HttpResponseParser | None = None
        self._answer: Answer | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._body: bytes | None = None  # of the answer that is complete
        self._headers_complete = False
        self._delimited = False
        self._bare_bytes = 0
        self._coding = self._location = b""
        self._redirect: RedirectError | None = None
        self._used = False

    async def exchange(self, head: bytes, body: bytes, answer: SseAnswer) -> None:
        """Send a request and wait for the end of its answer.

        Raises:
            ExchangeError: the connection was lost, or the server sent no HTTP or no good answer.
            RedirectError: the request is to be sent elsewhere.
        """
        transport = self._transport
        if transport is None or not self.is_open:
            raise ExchangeError(SERVER_CLOSED, stale=self._used)
        self._answer, self._waiter = answer, self._loop.create_future()
        self._headers_complete = self._delimited = False
        self._bare_bytes = 0
        self._coding = self._location = b""
        self._redirect = None
        transport.write(head + body)
        try:
            await self._waiter
        finally:
            self._answer = self._waiter = None
            self._used = True

    def abort(self) -> None:
        """Close at once; bytes that were not sent yet are dropped."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the connection is open."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = HttpResponseParser(self)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Parse the bytes and hand them on with the time at which they came."""
        now_ns = time.monotonic_ns()
        answer, parser = self._answer, self._parser
        if answer is None or parser is None:
            self.abort()  # unsolicited: a server's parting words
            return
        answer.begun = True
        failure: str | None = None
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.is_open = False
            failure = f"what the server sent is not HTTP: {error}"
        if self._redirect is not None:
            self.is_open = False  # the rest of its body is not waited for
            self._fail(self._redirect)
            return
        if not self._parts and self._body is None:
            self._bare_bytes += len(data)
            if self._bare_bytes > MAX_HEAD_BYTES:
                failure = f"the server sent more than {megabytes(MAX_HEAD_BYTES)} of headers"
        try:
            self._hand_on(self._answer or answer, now_ns, failure)  # the headers may have put another in its place
        except Exception as error:  # an error that stayed here would leave the request waiting for ever
            self.is_open = False
            self._fail(error)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        name = name.lower()
        if name in _BODY_HEADERS:
            self._delimited = True
        elif name == b"content-encoding":
            self._coding += (b"," if self._coding else b"") + value
        elif name == b"location":
            self._location = self._location or value

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        status_code = self._parser.get_status_code() if self._parser is not None else 0
        if status_code >= 200 and self._answer is not None:
            self._headers_complete = True
            if self._location and status_code in REDIRECTS:
                self._redirect = RedirectError(status_code, self._location.decode("latin-1"))
                return
            self._answer.start(status_code)
            if self._coding:
                self._answer = PackedAnswer(self._answer, self._coding.decode("latin-1"), status_code)

    def on_message_complete(self) -> None:
        """Called by the parser; interim answers (100 to 199) have no body and are not the end."""
        if self._headers_complete and self._body is None:
            self._body = b"".join(self._parts)
            self._parts.clear()
            if self._parser is not None and not self._parser.should_keep_alive():
                self.is_open = False

    def eof_received(self) -> bool:
        """Close our side, as the server has closed its own."""
        self.is_open = False
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """End the request: the connection is closed, which is how an answer without a length ends."""
        now_ns = time.monotonic_ns()
        self.is_open = False
        self._transport = self._parser = None  # the parser refers back: without a cycle both go at once
        answer = self._answer
        if answer is None:
            return
        if self._headers_complete and not self._delimited and error is None:
            try:
                self._end(answer, b"", now_ns)
            except Exception as unforeseen:
                self._fail(unforeseen)
        elif answer.begun:
            self._fail(ExchangeError(SERVER_CLOSED))
        else:
            self._fail(ExchangeError("the server closed the connection without an answer", stale=self._used))

    def _hand_on(self, answer: Answer, now_ns: int, failure: str | None) -> None:
        """Give the answer the parsed bytes."""
        parts = self._parts
        if self._body is not None:
            body, self._body = self._body, None
            if parts:
                self.is_open = False  # bytes after the end of the answer
                parts.clear()
            self._end(answer, body, now_ns)
            return
        if parts:
            arrived = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            answer.feed(arrived, now_ns)
        if failure is not None:
            self._fail(ExchangeError(failure))

    def _end(self, answer: Answer, body: bytes, now_ns: int) -> None:
        """Complete the answer: its last part and its verdict, which may be an error."""
        if body:
            answer.feed(body, now_ns)
        try:
            answer.finish(now_ns)
        except ExchangeError as error:
            self._fail(error)
            return
        self._answer = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        self._answer = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


class PooledConnection(Protocol):
    """A connection that may wait in a pool."""

    @property
    def is_open(self) -> bool:
        """Whether it can still be used; the peer may close it at any time."""

    def abort(self) -> None:
        """Close it at once."""


AnyConnection = TypeVar("AnyConnection", bound=PooledConnection)


class Pool(Generic[AnyConnection]):
    """Idle connections, last in, first out: under little load the same few stay warm and the others end.

    Args:
        keep_alive_s: a connection idle for longer is closed, not used: the server may be about to close it.
    """

    def __init__(self, keep_alive_s: float) -> None:
        self._keep_alive_ns = round(keep_alive_s * 1e9)
        self._idle: deque[tuple[int, AnyConnection]] = deque()

    def put(self, connection: AnyConnection) -> None:
        """Keep a connection that is free."""
        self._idle.append((time.monotonic_ns(), connection))

    def take(self) -> AnyConnection | None:
        """Return the connection used last, if any can be used again; close those idle for too long."""
        idle = self._idle
        oldest_ns = time.monotonic_ns() - self._keep_alive_ns
        while idle and idle[0][0] < oldest_ns:
            idle.popleft()[1].abort()
        while idle:
            connection = idle.pop()[1]
            if connection.is_open:
                return connection
        return None

    def close(self) -> None:
        """Close all of them."""
        while self._idle:
            self._idle.pop()[1].abort()


class PlainTransport:
    """The transport on connections of its own, over TLS for https://.

    Args:
        settings: of the client.
        endpoints: base URLs of all servers.

    Raises:
        InputError: the settings cannot be used.
    """

    def __init__(self, settings: ClientSettings, endpoints: Iterable[str]) -> None:
        headers = "".join(f"{name}: {value}\r\n" for name, value in request_headers(settings).items())
        self._endpoints = {url: _Endpoint(url, settings, headers) for url in endpoints}

    async def exchange(self, endpoint: str, path: str, body: bytes, answer: SseAnswer, *, fresh: bool) -> None:
        """See `Transport`."""
        target = self._endpoints[endpoint]
        connection = None if fresh else target.pool.take()
        if connection is None:
            connection = await target.connect()
        completed = False
        try:
            await connection.exchange(target.head(path, len(body)), body, answer)
            completed = True
        finally:
            if completed and connection.is_open:
                target.pool.put(connection)
            else:
                connection.abort()

    async def close(self) -> None:
        """See `Transport`."""
        for target in self._endpoints.values():
            target.pool.close()


class _Endpoint:
    """The address of an endpoint, its idle connections, and the common head of its requests."""

    def __init__(self, endpoint: str, settings: ClientSettings, headers: str) -> None:
        url = urlsplit(endpoint)
        secure = url.scheme == "https"
        self.pool: Pool[Connection] = Pool(settings.keep_alive_s)
        self._heads: dict[str, bytes] = {}
        self._headers = headers
        self._host = url.hostname or ""
        self._port = url.port or (443 if secure else 80)
        self._netloc = url.netloc
        self._tls: ssl.SSLContext | None = tls_context(settings) if secure else None
        self._timeout_s = settings.connect_timeout_s
        self._addresses: list[str] = []

    def head(self, path: str, length: int) -> bytes:
        """Return a request's head; all but the length is made once."""
        prefix = self._heads.get(path)
        if prefix is None:
            text = f"POST {path} HTTP/1.1\r\nHost: {self._netloc}\r\n{self._headers}Content-Length: "
            prefix = self._heads[path] = text.encode()
        return b"%b%d\r\n\r\n" % (prefix, length)

    async def connect(self) -> Connection:
        """Open a new connection.

        Raises:
            ExchangeError: it cannot be opened.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._connect_to_any(await self._resolve())
        except TimeoutError:
            raise ExchangeError(f"no connection to {self._netloc} within {self._timeout_s:g} s") from None
        except OSError as error:
            self._addresses = []  # the name may mean another machine by now
            raise ExchangeError(connect_failure(self._netloc, error)) from None

    async def _connect_to_any(self, addresses: list[str]) -> Connection:
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        for address in addresses:
            try:
                _, connection = await loop.create_connection(
                    Connection, address, self._port, ssl=self._tls, server_hostname=self._host if self._tls else None
                )
            except OSError as error:
                failure = failure or error
            else:
                if address != addresses[0]:
                    self._addresses = [address]
                return connection
        raise failure or OSError("the name has no address")

    async def _resolve(self) -> list[str]:
        """Return the addresses of the host; a name is looked up once, not for each connection."""
        if not self._addresses:
            entries = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        return self._addresses
