"""What every way of sending a request has in common."""

import os
import ssl
from typing import Protocol

from inference_energy.acquire.load.http.request import ClientSettings
from inference_energy.acquire.load.http.sse import SseAnswer
from inference_energy.errors import InputError

SERVER_CLOSED = "the server closed the connection before the answer was complete"


class Transport(Protocol):
    """Sends requests and hands what comes back to their answers."""

    async def exchange(self, endpoint: str, path: str, body: bytes, answer: SseAnswer, *, fresh: bool) -> None:
        """Send one request and read its answer to the end; a connection that is not at its answer's end is closed.

        Args:
            endpoint: base URL.
            path: below it.
            body: JSON.
            answer: takes in what comes.
            fresh: use a new connection.

        Raises:
            ExchangeError: the request failed; `stale` says that it should be sent again.
        """

    async def close(self) -> None:
        """Close all connections."""


def request_headers(settings: ClientSettings) -> dict[str, str]:
    """Headers of every request, but for its length and its host.

    Raises:
        InputError: the API key cannot stand in a header; it is not shown.
    """
    headers = {"User-Agent": "inference-energy", "Content-Type": "application/json"}
    key = settings.api_key
    if key is not None:
        if not key.isascii() or not key.isprintable() or " " in key or not key:
            raise InputError("api_key: it is empty or holds characters that an HTTP header cannot; check the variable")
        headers["Authorization"] = f"Bearer {key}"
    return headers


def tls_context(settings: ClientSettings) -> ssl.SSLContext:
    """How the server's certificate is checked.

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


def connect_failure(where: str, error: BaseException) -> str:
    """Why there is no connection."""
    if isinstance(error, ssl.SSLError):
        return f"no secure connection to {where}: {getattr(error, 'verify_message', '') or error.reason or error}"
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return f"no connection to {where}: {os.strerror(error.errno)}"
    if isinstance(error, OSError) and error.strerror:  # of looking up the name
        return f"no connection to {where}: {error.strerror}"
    return f"no connection to {where}: {error or type(error).__name__}"
