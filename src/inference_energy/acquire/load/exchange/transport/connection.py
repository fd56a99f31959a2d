"""One HTTP/1.1 connection: requests out, one at a time, and answers parsed as they arrive."""

import asyncio
import time
from collections.abc import Callable
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from inference_energy.acquire.load.exchange.answer import Answer, ExchangeError
from inference_energy.acquire.load.exchange.transport.base import SERVER_CLOSED

_BODY_HEADERS = (b"content-length", b"transfer-encoding")


class Connection(asyncio.Protocol):
    """Parses in the callback that brings the bytes: no task wakes before the answer is complete.

    Attributes:
        is_open: whether another request can be sent on it.
    """

    __slots__ = (
        "_answer",
        "_body",
        "_delimited",
        "_headers_complete",
        "_loop",
        "_parser",
        "_parts",
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
        self._used = False

    async def exchange(self, head: bytes, body: bytes, answer: Answer) -> None:
        """Send a request and wait for the end of its answer.

        Raises:
            ExchangeError: the connection was lost, or what came is not HTTP or not a good answer.
        """
        transport = self._transport
        if transport is None or not self.is_open:
            raise ExchangeError(SERVER_CLOSED, stale=self._used)
        self._answer, self._waiter = answer, self._loop.create_future()
        self._headers_complete = self._delimited = False
        transport.write(head + body)
        try:
            await self._waiter
        finally:
            self._answer = self._waiter = None
            self._used = True

    def abort(self) -> None:
        """Close at once; what was to be sent is dropped."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = HttpResponseParser(self)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Parse what has come and hand it on, with the time at which it came."""
        now_ns = time.monotonic_ns()
        answer, parser = self._answer, self._parser
        if answer is None or parser is None:
            self.abort()  # nobody asked: a server's parting words
            return
        answer.begun = True
        failure: str | None = None
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.is_open = False
            failure = f"what the server sent is not HTTP: {error}"
        try:
            self._hand_on(answer, now_ns, failure)
        except Exception as error:  # whatever it is, it must not stay here: the request would wait for ever
            self.is_open = False
            self._fail(error)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        if name.lower() in _BODY_HEADERS:
            self._delimited = True

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        status_code = self._parser.get_status_code() if self._parser is not None else 0
        if status_code >= 200 and self._answer is not None:
            self._headers_complete = True
            self._answer.start(status_code)

    def on_message_complete(self) -> None:
        """Called by the parser; interim answers (100 to 199) have no body and are not the end."""
        if self._headers_complete and self._body is None:
            self._body = b"".join(self._parts)
            self._parts.clear()
            if self._parser is not None and not self._parser.should_keep_alive():
                self.is_open = False

    def eof_received(self) -> bool:
        """The server has closed its side; so do we."""
        self.is_open = False
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed; an answer without a length ends so."""
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
        """Give the answer what the parser has found."""
        parts = self._parts
        if self._body is not None:
            body, self._body = self._body, None
            if parts:
                self.is_open = False  # more than was asked for
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
        """The answer is complete: its last part, and its verdict, which may be an error."""
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
