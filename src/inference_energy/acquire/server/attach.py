"""Attachment to a server that somebody else runs."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from inference_energy.acquire.server.pages import Access, PageError, ServerPages
from inference_energy.acquire.server.preflight import listening_pids
from inference_energy.contracts.endpoint_url import checked_endpoint
from inference_energy.errors import InputError, Setting

SHOWN_MODELS = 20
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def base_url(host: str, port: int) -> str:
    """Return where a client on this machine reaches a server that binds this host."""
    reached = WILDCARDS.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


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
    access = access or Access()
    try:
        url = checked_endpoint(endpoint)
    except ValueError as error:
        raise InputError(str(error), key=f"{section}endpoint") from error
    async with ServerPages(url, access) as pages:
        try:
            models = await pages.models()
        except PageError as error:
            raise _refusal(error, url, access, f"{section}endpoint") from error
        if why := await pages.unhealthy():
            text = f"{url}/health says that the server is not healthy ({why}); restart it"
            raise InputError(text, key=f"{section}endpoint")
        version = await pages.version()
        chosen = _chosen(section, model, models, pages)
    parts = urlsplit(url)
    return AttachedServer(
        base_url=url,
        model=chosen,
        models=tuple(map(pages.hide, models)),
        server_pid=_local_pid(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)),
        version=version,
    )


def _refusal(error: PageError, url: str, access: Access, key: str) -> InputError:
    """Return why a server cannot be used whose models could not be read."""
    if error.status in (401, 403):
        what = "refuses the API key" if access.key_env else "wants an API key, and none was sent"
        return InputError(
            f"{url} {what} (status {error.status}): export OPENAI_API_KEY with it, or name its variable",
            key=key,
            write=(Setting("client.api_key_env", "VARIABLE"),),
        )
    if not error.answered:
        return InputError(f"nothing answers at {url}: {error}; start the server or correct the address", key=key)
    if error.status == 404:
        remedy = "write the address of a server with OpenAI's API, without /v1"
        return InputError(f"{url} has no /v1/models (status 404); {remedy}", key=key)
    write = () if error.remedy is None else (error.remedy,)
    return InputError(f"no usable answer from {url}/v1/models: {error}", key=key, write=write)


def _chosen(section: str, model: str | None, models: list[str], pages: ServerPages) -> str:
    if model in models:
        return str(model)
    if model is None and len(models) == 1 and pages.hide(models[0]) == models[0]:
        return models[0]
    there = ", ".join(map(pages.shown, models[:SHOWN_MODELS])) or "none"
    if len(models) > SHOWN_MODELS:
        there += f" and {len(models) - SHOWN_MODELS:,} more"
    if model is None:
        raise InputError(f"write which model to use; the server has: {there}", key=f"{section}model")
    raise InputError(f"the server has no model {model}; it has: {there}", key=f"{section}model")


def _local_pid(host: str, port: int) -> int | None:
    """Return the process behind a loopback address: the lowest pid, since forked workers share its socket."""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return min(listening_pids(port), default=None) if local else None
