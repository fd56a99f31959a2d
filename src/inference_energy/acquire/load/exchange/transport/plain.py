"""The fast transport: httptools on the event loop's own sockets, one callback an arrival."""

import asyncio
import socket
import ssl
from collections.abc import Iterable
from urllib.parse import urlsplit

from inference_energy.acquire.load.exchange.answer import Answer, ExchangeError
from inference_energy.acquire.load.exchange.settings import ClientSettings
from inference_energy.acquire.load.exchange.transport.base import connect_failure, request_headers, tls_context
from inference_energy.acquire.load.exchange.transport.connection import Connection
from inference_energy.acquire.load.exchange.transport.pool import Pool


class PlainTransport:
    """Sends requests on connections of its own, over TLS for https://.

    Args:
        settings: of the client.
        endpoints: that it will be asked to send to.

    Raises:
        InputError: the settings cannot be used.
    """

    def __init__(self, settings: ClientSettings, endpoints: Iterable[str]) -> None:
        headers = "".join(f"{name}: {value}\r\n" for name, value in request_headers(settings).items())
        self._places = {endpoint: _Place(endpoint, settings, headers) for endpoint in endpoints}

    async def exchange(self, endpoint: str, path: str, body: bytes, answer: Answer, *, fresh: bool) -> None:
        """See `Transport`."""
        place = self._places[endpoint]
        connection = None if fresh else place.pool.take()
        if connection is None:
            connection = await place.connect()
        completed = False
        try:
            await connection.exchange(place.head(path, len(body)), body, answer)
            completed = True
        finally:
            if completed and connection.is_open:
                place.pool.put(connection)
            else:
                connection.abort()

    async def close(self) -> None:
        """See `Transport`."""
        for place in self._places.values():
            place.pool.close()


class _Place:
    """Where an endpoint is, and what every request to it begins with."""

    def __init__(self, endpoint: str, settings: ClientSettings, headers: str) -> None:
        url = urlsplit(endpoint)
        secure = url.scheme == "https"
        self.pool: Pool[Connection] = Pool(settings.keep_alive_s)
        self._heads: dict[str, bytes] = {}
        self._headers = headers
        self._host = url.hostname or ""
        self._port = url.port or (443 if secure else 80)
        self._netloc = url.netloc
        self._base = url.path.rstrip("/")
        self._tls: ssl.SSLContext | None = tls_context(settings) if secure else None
        self._timeout_s = settings.connect_timeout_s
        self._addresses: list[str] = []

    def head(self, path: str, length: int) -> bytes:
        """A request's head; all but the length is made once."""
        beginning = self._heads.get(path)
        if beginning is None:
            text = f"POST {self._base}{path} HTTP/1.1\r\nHost: {self._netloc}\r\n{self._headers}Content-Length: "
            beginning = self._heads[path] = text.encode()
        return b"%b%d\r\n\r\n" % (beginning, length)

    async def connect(self) -> Connection:
        """A new connection.

        Raises:
            ExchangeError: there is none.
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
        """Addresses of the host; a name is looked up once, not for each connection."""
        if not self._addresses:
            found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        return self._addresses
