"""Pages of a server beside its answers: /v1/models, /health, /version, /metrics.

Every page is bounded in bytes and time, and its JSON in depth, since what answers at an address may be anything. A page
is asked for on the server itself alone: a redirect elsewhere is refused, so no API key goes there. Errors are in the
project's words, and hold no key that the server echoes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import aiohttp

from inference_energy.acquire.load.http.content_coding import unpacker_for
from inference_energy.acquire.load.http.transport import REDIRECTS
from inference_energy.acquire.load.settings import api_key_env
from inference_energy.config.load.client import ClientConfig
from inference_energy.contracts.endpoint_url import redirect_target
from inference_energy.contracts.outside import (
    MAX_PAGE_MIB,
    MAX_SERIES,
    MIB,
    PAGE_TIMEOUT_S,
    decode_json,
    one_line,
    read_body,
)
from inference_energy.contracts.redaction import Redaction
from inference_energy.errors import InputError, Setting

MAX_JSON_BYTES = 4 * MIB
"""Of a page that is decoded, which takes up to 30 times its size. A list of 5,000 models has 1 MiB."""

MAX_REDIRECTS = 5
MAX_MODELS = 10_000
LONGEST_NAME_CHARACTERS = 1000
LONGEST_VERSION_CHARACTERS = 100
SHOWN_CHARACTERS = 200
"""Of a server's own words in a message."""


class PageError(Exception):
    """A page could not be read; the message says why, in a clause about the server.

    Attributes:
        status: the status of the answer, where that is the cause.
        remedy: a setting to write, where one may help.
        answered: whether anything answered.
    """

    def __init__(
        self, message: str, *, status: int | None = None, remedy: Setting | None = None, answered: bool = True
    ) -> None:
        super().__init__(message)
        self.status = status
        self.remedy = remedy
        self.answered = answered


class Page(NamedTuple):
    """An answer of any status."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Access:
    """Access to the pages of a server; the load client has its own.

    Attributes:
        key_env: the environment variable with the API key; None: no key is sent.
        ca_file: certificates to trust instead of the system's.
        verify: whether the server's certificate is checked.
        max_page_bytes: largest page that is read.
        timeout_s: longest time of one page.
        max_series: largest number of series on /metrics.
    """

    key_env: str | None = None
    ca_file: str | None = None
    verify: bool = True
    max_page_bytes: int = field(default=MAX_PAGE_MIB * MIB, kw_only=True)
    timeout_s: float = field(default=PAGE_TIMEOUT_S, kw_only=True)
    max_series: int = field(default=MAX_SERIES, kw_only=True)

    @classmethod
    def from_config(cls, client: ClientConfig, *, attached: bool, setting: str = "client.api_key_env") -> Self:
        """Build from the `client` config section. Arguments are those of `api_key_env`.

        Raises:
            InputError: the environment variable that was named is not set, or holds no key.
        """
        key_env = api_key_env(client.api_key_env, attached=attached, setting=setting)
        return cls(
            key_env,
            client.ca_file,
            client.verify,
            max_page_bytes=client.max_page_mib * MIB,
            timeout_s=client.page_timeout_s,
            max_series=client.max_series,
        )

    @property
    def key(self) -> str | None:
        """Return the API key."""
        return os.environ.get(self.key_env) if self.key_env else None

    def tls(self) -> ssl.SSLContext | bool:
        """Return how the server's certificate is checked.

        Raises:
            InputError: the certificates cannot be read.
        """
        if not self.verify or self.ca_file is None:
            return self.verify
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else "it holds no certificate"
            raise InputError(f"{self.ca_file} cannot be used: {why}", key="client.ca_file") from error


class ServerPages:
    """The pages of one server; an async context manager.

    Args:
        base_url: without a path of the API.
        access: API key, certificates and bounds.
        keep_alive_s: an idle connection is closed after this time. A server that closed it first would fail a page.

    Attributes:
        hide: replaces the API key in texts that the server sent.

    Raises:
        InputError: the certificates cannot be read.
    """

    def __init__(self, base_url: str, access: Access | None = None, *, keep_alive_s: float = 3.0) -> None:
        self.base_url = base_url
        self.access = access or Access()
        self.hide = Redaction([self.access.key])
        self._tls = self.access.tls()
        self._keep_alive_s = keep_alive_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, max_bytes: int | None = None) -> Page:
        """Ask for a page of at most `max_bytes`, by default the bound of the access.

        Raises:
            PageError: no answer, or one that is too large, too slow or no HTTP.
        """
        try:
            async with asyncio.timeout(self.access.timeout_s):
                return await self._followed(path, self.access.max_page_bytes if max_bytes is None else max_bytes)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            raise self._page_error(error) from error

    async def good(self, path: str, max_bytes: int | None = None) -> bytes:
        """Return the body of a page whose status is one of success.

        Raises:
            PageError: as `get`, or another status.
        """
        page = await self.get(path, max_bytes)
        if not 200 <= page.status < 300:
            raise PageError(self._status(page), status=page.status)
        return page.body

    async def unhealthy(self) -> str | None:
        """Return why the server is not healthy; None where it is, or where /health cannot be asked.

        Gateways want a login for /health, or do not know it (4xx, 501); only 5xx and no answer speak against a server.
        """
        try:
            page = await self.get("/health")
        except PageError as error:
            return str(error)
        return self._status(page) if page.status >= 500 and page.status != HTTPStatus.NOT_IMPLEMENTED else None

    async def models(self) -> list[str]:
        """Return the names that /v1/models lists.

        Raises:
            PageError: no answer, not a good one, or no list of models.
        """
        body = await self.good("/v1/models", self._max_json_bytes)
        try:
            return listed_models(body)
        except ValueError as error:
            raise PageError(f"its /v1/models is {self.shown(str(error))}") from error

    async def version(self) -> str | None:
        """Return the version that /version states, or None without such a page."""
        try:
            stated = stated_version(await self.good("/version", self._max_json_bytes))
        except PageError:
            return None
        return None if stated is None else one_line(self.hide(stated), LONGEST_VERSION_CHARACTERS) or None

    def shown(self, text: str) -> str:
        """Return a server's own words for a message: short, printable, without the API key."""
        return one_line(self.hide(text), SHOWN_CHARACTERS)

    @property
    def _max_json_bytes(self) -> int:
        return min(self.access.max_page_bytes, MAX_JSON_BYTES)

    async def _followed(self, path: str, max_bytes: int) -> Page:
        if self._session is None:
            self._session = self._open()
        url = self.base_url + path
        for _ in range(MAX_REDIRECTS + 1):
            async with self._session.get(url, allow_redirects=False) as response:
                location = response.headers.get("Location")
                if response.status in REDIRECTS and location:
                    url = redirect_target(url, location, self.hide)
                    continue
                unpacker = unpacker_for(",".join(response.headers.getall("Content-Encoding", ())))
                body = await read_body(response, max_bytes, unpacker)
                return Page(response.status, body)
        raise ValueError(f"{path} is redirected more than {MAX_REDIRECTS} times")

    def _open(self) -> aiohttp.ClientSession:
        key = self.access.key
        # Packing a page would take the server and us more time than it saves on the way.
        headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})}
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, keepalive_timeout=self._keep_alive_s),
            headers=headers,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self.access.timeout_s),
        )

    def _status(self, page: Page) -> str:
        try:
            phrase = f" ({HTTPStatus(page.status).phrase})"
        except ValueError:
            phrase = ""
        words = self.shown(page.body[: 10 * SHOWN_CHARACTERS].decode(errors="replace"))
        return f"it answers with status {page.status}{phrase}" + (f": {words}" if words else "")

    def _page_error(self, error: Exception) -> PageError:
        """Return a failure in words for the user. The library's own show its internals and the address twice."""
        if isinstance(error, TimeoutError):
            return PageError(f"no whole answer within {self.access.timeout_s:g} s", answered=False)
        if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
            cause = getattr(error, "certificate_error", error)
            why = self.shown(getattr(cause, "verify_message", "") or "it is not valid")
            return PageError(f"its certificate is not trusted: {why}", remedy=Setting("client.ca_file", "FILE"))
        if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
            return PageError("no TLS connection comes about; without TLS its address begins with http://")
        if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
            return PageError(f"no host of the name {urlsplit(self.base_url).hostname} is found", answered=False)
        if isinstance(error, aiohttp.ClientConnectorError | ConnectionRefusedError):
            return PageError(_system_words(error), answered=False)
        if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError):
            return PageError("it closed the connection without an answer; with TLS its address begins with https://")
        if isinstance(error, aiohttp.ClientPayloadError):
            return PageError("its answer was cut off")
        if isinstance(error, aiohttp.ClientResponseError):
            return PageError("what answers there is no HTTP server")
        if isinstance(error, aiohttp.ClientError | OSError):
            return PageError(f"its answer cannot be read ({type(error).__name__})")
        return PageError(self.shown(str(error)))


def listed_models(body: bytes) -> list[str]:
    """Return the names on a page of /v1/models.

    Raises:
        ValueError: it is no list of models; the message goes on after "is".
    """
    content = decode_json(body)
    listed = content.get("data") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise ValueError("no list of models")
    if len(listed) > MAX_MODELS:
        raise ValueError(f"a list of more than {MAX_MODELS:,} models")
    names = [entry.get("id") if isinstance(entry, dict) else None for entry in listed]
    if not all(isinstance(name, str) and 0 < len(name) <= LONGEST_NAME_CHARACTERS for name in names):
        raise ValueError("no list of models: an entry has no name")
    return [str(name) for name in names]


def stated_version(body: bytes) -> str | None:
    """Return the version on a page of /version, of any length; None if it states none."""
    try:
        content = decode_json(body)
    except ValueError:
        return None
    version = content.get("version") if isinstance(content, dict) else None
    return version if isinstance(version, str) else None


def _system_words(error: OSError) -> str:
    """Return why there is no connection, in the words of the operating system."""
    number = error.errno if error.errno and error.errno > 0 else 0
    return os.strerror(number).lower() if number else "no connection"
