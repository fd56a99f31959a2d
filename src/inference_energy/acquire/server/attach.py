"""Attach to a server that somebody else runs: check that it answers and has the model, and learn what it tells."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from inference_energy.acquire.server.access import Access
from inference_energy.acquire.server.endpoint import is_healthy, listed_models, server_version, without_api_path
from inference_energy.acquire.server.listening import listening_pids
from inference_energy.errors import InputError


@dataclass(frozen=True, slots=True)
class AttachedServer:
    """A server that we do not own: never stopped by us.

    Attributes:
        base_url: without ``/v1``.
        model: the name to ask for; one of ``models``.
        server_pid: the process that listens there when the server is on this machine and may be seen, else None.
        version: what /version says, or None.
    """

    base_url: str
    model: str
    models: tuple[str, ...]
    server_pid: int | None
    version: str | None


async def attach(name: str, endpoint: str, model: str | None = None, access: Access | None = None) -> AttachedServer:
    """Look at the server that the config calls ``name``; ``model`` None takes the only one that it has.

    ``access`` is what the server wants of whoever asks.

    Raises:
        InputError: no answer, no access, not healthy, or not that model; the message names ``servers.<name>.endpoint``
            or ``servers.<name>.model`` and lists the models that are there.
    """
    url = without_api_path(endpoint)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"servers.{name}.endpoint: {endpoint} is no URL; write one like http://127.0.0.1:8000")
    async with (access or Access()).session() as asking:
        try:
            models = await listed_models(asking, url)
        except aiohttp.ClientResponseError as error:
            if error.status not in (401, 403):
                raise InputError(f"servers.{name}.endpoint: {url}/v1/models answers with {error.status}") from error
            what = "wants an API key, and none was sent" if not (access and access.key_env) else "refuses the API key"
            raise InputError(
                f"servers.{name}.endpoint: {url} {what} (status {error.status}); export OPENAI_API_KEY with it, or "
                "write in client.api_key_env which variable holds it"
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise InputError(
                f"servers.{name}.endpoint: no usable answer from {url}/v1/models ({why}); "
                "start the server or write its address"
            ) from error
        if await is_healthy(asking, url) is False:
            raise InputError(f"servers.{name}.endpoint: {url}/health says that the server is not healthy; restart it")
        version = await server_version(asking, url)
    return AttachedServer(
        base_url=url,
        model=_chosen(name, model, models),
        models=tuple(models),
        server_pid=_local_pid(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)),
        version=version,
    )


def _chosen(name: str, model: str | None, models: list[str]) -> str:
    there = ", ".join(models) or "none"
    if model is None:
        if len(models) == 1:
            return models[0]
        raise InputError(f"servers.{name}.model: write which model to use; the server has: {there}")
    if model not in models:
        raise InputError(f"servers.{name}.model: the server has no model {model}; it has: {there}")
    return model


def _local_pid(host: str, port: int) -> int | None:
    """The process behind a loopback address. The lowest pid: forked workers share their parent's socket."""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return min(listening_pids(port), default=None) if local else None
