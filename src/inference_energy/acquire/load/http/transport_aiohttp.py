"""The transport for unusual servers: aiohttp, which knows all of HTTP, at four times the cost."""

import time
from collections.abc import Iterable
from types import SimpleNamespace
from urllib.parse import urlsplit

import aiohttp
import yarl

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

READ_BUFFER_BYTES = 2**20


class GeneralTransport:
    """The transport through aiohttp. Make it within a running event loop.

    Args:
        settings: of the client.
        endpoints: base URLs of all servers.

    Raises:
        InputError: the settings cannot be used.
    """

    def __init__(self, settings: ClientSettings, endpoints: Iterable[str]) -> None:
        self._settings = settings
        self._headers = request_headers(settings)
        self._tls = tls_context(settings) if any(url.startswith("https:") for url in endpoints) else True
        self._urls: dict[tuple[str, str], yarl.URL] = {}
        self._session = self._open(keep_alive_s=settings.keep_alive_s)
        self._fresh: aiohttp.ClientSession | None = None

    async def exchange(self, endpoint: str, path: str, body: bytes, answer: SseAnswer, *, fresh: bool) -> None:
        """See `Transport`."""
        url = self._urls.get((endpoint, path))
        if url is None:
            origin = endpoint[: len(endpoint) - len(urlsplit(endpoint).path)]
            url = self._urls[endpoint, path] = yarl.URL(origin + path, encoded=True)
        if fresh and self._fresh is None:
            self._fresh = self._open(keep_alive_s=None)
        session = self._fresh if fresh and self._fresh else self._session
        connection = SimpleNamespace(reused=False)
        try:
            async with session.post(
                url, data=body, headers=self._headers, allow_redirects=False, trace_request_ctx=connection
            ) as response:
                if response.status in REDIRECTS and (location := response.headers.get("Location")):
                    response.close()
                    raise RedirectError(response.status, location)
                answer.start(response.status)
                reader: Answer = answer
                if coding := ",".join(response.headers.getall("Content-Encoding", ())):
                    reader = PackedAnswer(answer, coding, response.status)
                read = response.content.readany
                while data := await read():
                    reader.feed(data, time.monotonic_ns())
            reader.finish(time.monotonic_ns())
        except (aiohttp.ServerTimeoutError, aiohttp.ClientConnectorError) as error:
            raise ExchangeError(self._no_connection(url, error)) from None
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if answer.begun:
                raise ExchangeError(SERVER_CLOSED) from None
            gone = "the server closed the connection without an answer"
            raise ExchangeError(gone, stale=connection.reused) from error
        except aiohttp.ClientPayloadError:
            raise ExchangeError(SERVER_CLOSED) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ExchangeError(f"what the server sent is not HTTP: {error}") from None

    async def close(self) -> None:
        """See `Transport`."""
        for session in (self._session, self._fresh):
            if session is not None:
                await session.close()

    def _open(self, keep_alive_s: float | None) -> aiohttp.ClientSession:
        """Open a session; without `keep_alive_s` each of its requests gets a new connection."""
        connector = (
            aiohttp.TCPConnector(limit=0, ssl=self._tls, force_close=True)
            if keep_alive_s is None
            else aiohttp.TCPConnector(limit=0, ssl=self._tls, keepalive_timeout=keep_alive_s)
        )
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
            skip_auto_headers=("Accept", "Accept-Encoding"),
            trace_configs=[trace],
        )

    def _no_connection(self, url: yarl.URL, error: Exception) -> str:
        if isinstance(error, aiohttp.ServerTimeoutError):
            return f"no connection to {url.authority} within {self._settings.connect_timeout_s:g} s"
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        return connect_failure(url.authority, cause)


async def _note_reuse(
    session: aiohttp.ClientSession, context: SimpleNamespace, parameters: aiohttp.TraceConnectionReuseconnParams
) -> None:
    context.trace_request_ctx.reused = True
