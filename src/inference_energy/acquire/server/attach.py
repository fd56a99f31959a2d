"""Attachment to a server that somebody else runs: its access, its health, its models and version."""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from inference_energy.acquire.load.settings import api_key_env
from inference_energy.acquire.server.preflight import listening_pids
from inference_energy.config.load.client import ClientConfig
from inference_energy.errors import InputError, Setting

TIMEOUT = aiohttp.ClientTimeout(total=5.0)
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def base_url(host: str, port: int) -> str:
    """Return where a client on this machine reaches a server that binds this host."""
    reached = WILDCARDS.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def without_api_path(endpoint: str) -> str:
    """Return the endpoint without a trailing slash or `/v1`, which users may write as well."""
    return endpoint.rstrip("/").removesuffix("/v1").rstrip("/")


async def is_healthy(session: aiohttp.ClientSession, url: str) -> bool | None:
    """Ask /health: True for 200, None when the server has no such page, False for anything else or no answer."""
    try:
        async with session.get(f"{url}/health", timeout=TIMEOUT) as response:
            return None if response.status == 404 else response.status == 200
    except (aiohttp.ClientError, OSError):
        return False


async def listed_models(session: aiohttp.ClientSession, url: str) -> list[str]:
    """Return the names that /v1/models lists.

    Raises:
        aiohttp.ClientError, OSError: no answer (TimeoutError is an OSError), or not a good one.
        ValueError: the answer is no list of models.
    """
    body = await _json(session, f"{url}/v1/models")
    try:
        return [str(model["id"]) for model in body["data"]]
    except (KeyError, TypeError) as error:
        raise ValueError("its /v1/models is no list of models") from error


async def server_version(session: aiohttp.ClientSession, url: str) -> str | None:
    """Return the version that /version states, or None without such a page."""
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


@dataclass(frozen=True, slots=True)
class Access:
    """Access to pages such as /v1/models and /metrics; the load client has its own.

    Attributes:
        key_env: the environment variable with the API key; None: no key is sent.
        ca_file: certificates to trust instead of the system's.
        verify: whether the server's certificate is checked.
    """

    key_env: str | None = None
    ca_file: str | None = None
    verify: bool = True

    @classmethod
    def from_config(cls, client: ClientConfig, *, attached: bool, setting: str = "client.api_key_env") -> Self:
        """Build from the `client` config section. Arguments are those of `api_key_env`.

        Raises:
            InputError: the environment variable that was named is not set.
        """
        key_env = api_key_env(client.api_key_env, attached=attached, setting=setting)
        return cls(key_env, client.ca_file, client.verify)

    def session(self, **connector: Any) -> aiohttp.ClientSession:
        """Open a session with this access; `connector` has further arguments of `aiohttp.TCPConnector`.

        Raises:
            InputError: the certificates cannot be read.
        """
        key = os.environ.get(self.key_env) if self.key_env else None
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls(), **connector), headers=headers)

    def _tls(self) -> ssl.SSLContext | bool:
        if not self.verify or self.ca_file is None:
            return self.verify
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise InputError(f"{self.ca_file} cannot be used: {error}", key="client.ca_file") from error


@dataclass(frozen=True, slots=True)
class AttachedServer:
    """A server that we do not own and never stop.

    Attributes:
        base_url: without `/v1`.
        model: the name to use; one of `models`.
        server_pid: the process that listens there if it is on this machine and visible, else None.
        version: the version that it states, or None.
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
            or ``servers.<name>.model`` (``endpoint`` or ``model`` if ``name`` is empty) and lists the models that are
            there.
    """
    section = f"servers.{name}." if name else ""
    url = without_api_path(endpoint)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{endpoint} is no URL; write one like http://127.0.0.1:8000", key=f"{section}endpoint")
    async with (access or Access()).session() as asking:
        try:
            models = await listed_models(asking, url)
        except aiohttp.ClientResponseError as error:
            if error.status not in (401, 403):
                raise InputError(f"{url}/v1/models answers with {error.status}", key=f"{section}endpoint") from error
            what = "wants an API key, and none was sent" if not (access and access.key_env) else "refuses the API key"
            raise InputError(
                f"{url} {what} (status {error.status}): export OPENAI_API_KEY with it, or name its variable",
                key=f"{section}endpoint",
                write=(Setting("client.api_key_env", "VARIABLE"),),
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise InputError(
                f"no usable answer from {url}/v1/models ({why}); start the server or write its address",
                key=f"{section}endpoint",
            ) from error
        if await is_healthy(asking, url) is False:
            raise InputError(f"{url}/health says that the server is not healthy; restart it", key=f"{section}endpoint")
        version = await server_version(asking, url)
    return AttachedServer(
        base_url=url,
        model=_chosen(section, model, models),
        models=tuple(models),
        server_pid=_local_pid(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)),
        version=version,
    )


def _chosen(section: str, model: str | None, models: list[str]) -> str:
    there = ", ".join(models) or "none"
    if model is None:
        if len(models) == 1:
            return models[0]
        raise InputError(f"write which model to use; the server has: {there}", key=f"{section}model")
    if model not in models:
        raise InputError(f"the server has no model {model}; it has: {there}", key=f"{section}model")
    return model


def _local_pid(host: str, port: int) -> int | None:
    """Return the process behind a loopback address: the lowest pid, since forked workers share its socket."""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return min(listening_pids(port), default=None) if local else None
