"""What a server with the OpenAI interface says about itself: healthy, its models, its version."""

from __future__ import annotations

from typing import Any

import aiohttp

TIMEOUT = aiohttp.ClientTimeout(total=5.0)
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def base_url(host: str, port: int) -> str:
    """Where a client on this machine reaches a server that binds this host."""
    reached = WILDCARDS.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def without_api_path(endpoint: str) -> str:
    """The endpoint without a trailing slash or ``/v1``, which users rightly write as well."""
    return endpoint.rstrip("/").removesuffix("/v1").rstrip("/")


async def is_healthy(session: aiohttp.ClientSession, url: str) -> bool | None:
    """GET /health: True for 200, None when the server has no such page, False for anything else or no answer."""
    try:
        async with session.get(f"{url}/health", timeout=TIMEOUT) as response:
            return None if response.status == 404 else response.status == 200
    except (aiohttp.ClientError, OSError):
        return False


async def listed_models(session: aiohttp.ClientSession, url: str) -> list[str]:
    """The names of GET /v1/models.

    Raises:
        aiohttp.ClientError, OSError: no answer (TimeoutError is an OSError), or not a good one.
        ValueError: an answer that is no list of models.
    """
    body = await _json(session, f"{url}/v1/models")
    try:
        return [str(model["id"]) for model in body["data"]]
    except (KeyError, TypeError) as error:
        raise ValueError("its /v1/models is no list of models") from error


async def server_version(session: aiohttp.ClientSession, url: str) -> str | None:
    """The version of GET /version, or None where that is not offered."""
    try:
        body = await _json(session, f"{url}/version")
    except (aiohttp.ClientError, OSError, ValueError):
        return None
    version = body.get("version") if isinstance(body, dict) else None
    return None if version is None else str(version)


async def _json(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(url, timeout=TIMEOUT) as response:
        response.raise_for_status()
        return await response.json(content_type=None)
