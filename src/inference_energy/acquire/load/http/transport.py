"""The boundary to HTTP: the protocol of transports, and the headers, TLS and messages that they share."""

import os
import ssl
from typing import Protocol

from inference_energy.acquire.load.http.sse import SseAnswer
from inference_energy.contracts.load_client import ClientSettings
from inference_energy.errors import InputError

SERVER_CLOSED = "the server closed the connection before the answer was complete"

REDIRECTS = frozenset({301, 302, 303, 307, 308})


class RedirectError(Exception):
    """The server answers that the request is to be sent elsewhere; nothing was handed to the answer's reader.

    Attributes:
        status_code: one of `REDIRECTS`.
        location: the header of that name, as the server wrote it.
    """

    def __init__(self, status_code: int, location: str) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code
        self.location = location


class Transport(Protocol):
    """Sends requests and hands the bytes that come back to their answers."""

    async def exchange(self, endpoint: str, path: str, body: bytes, answer: SseAnswer, *, fresh: bool) -> None:
        """Send one request and read its answer to the end; a connection that is not at its answer's end is closed.

        Args:
            endpoint: base URL, whose scheme, host and port are used.
            path: the whole path there, with a query where a redirect gave one.
            body: JSON.
            answer: reads the bytes that come.
            fresh: use a new connection.

        Raises:
            ExchangeError: the request failed; with `stale` it should be sent again.
            RedirectError: it is to be sent elsewhere.
        """

    async def close(self) -> None:
        """Close all connections."""


def request_headers(settings: ClientSettings) -> dict[str, str]:
    """Return the headers of every request, without its length and host.

    Raises:
        InputError: the API key cannot stand in a header; it is not shown.
    """
    # A packed answer would cost both sides time within the measured one.
    headers = {
        "User-Agent": "inference-energy",
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
    }
    key = settings.api_key
    if key is not None:
        if not key.isascii() or not key.isprintable() or " " in key or not key:
            raise InputError("api_key: it is empty or holds characters that an HTTP header cannot; check the variable")
        headers["Authorization"] = f"Bearer {key}"
    return headers


def tls_context(settings: ClientSettings) -> ssl.SSLContext:
    """Return how the server's certificate is checked.

    Raises:
        InputError: `ca_file` cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"ca_file: {settings.ca_file} holds no certificates that can be read: {error}") from error
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def connect_failure(address: str, error: BaseException) -> str:
    """Return why there is no connection to an address."""
    if isinstance(error, ssl.SSLError):
        return f"no secure connection to {address}: {getattr(error, 'verify_message', '') or error.reason or error}"
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return f"no connection to {address}: {os.strerror(error.errno)}"
    if isinstance(error, OSError) and error.strerror:  # from the look-up of the name
        return f"no connection to {address}: {error.strerror}"
    return f"no connection to {address}: {error or type(error).__name__}"
