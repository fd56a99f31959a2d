"""The server of a session: launched by us or attached to, and the checks before it is launched."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from inference_energy.acquire.gpus import gpu_uuids
from inference_energy.acquire.server.attach import AttachedServer, attach
from inference_energy.acquire.server.pages import Access, PageError, ServerPages
from inference_energy.acquire.server.preflight import preflight
from inference_energy.acquire.server.settings import VLLM_MODULE, LaunchSpec
from inference_energy.acquire.session.settings import ServerSettings
from inference_energy.config.servers import AttachSettings, LaunchSettings
from inference_energy.contracts.endpoint_url import checked_endpoint
from inference_energy.errors import InputError, RunError


def server_gpus(server: str, settings: ServerSettings) -> list[str]:
    """Return the UUIDs of a server's GPUs; none on vLLM's CPU back end."""
    on_cpu = isinstance(settings, LaunchSettings) and settings.back_end == "cpu"
    return gpu_uuids("none" if on_cpu else settings.gpus, server)


def launch_spec(
    server: str,
    settings: LaunchSettings,
    environment: Mapping[str, Any],
    model: Mapping[str, Any],
    logs: Path,
) -> LaunchSpec:
    """Build the launch of a server.

    Args:
        server: its key in the configuration.
        settings: its settings.
        environment: the content of server_environment.json.
        model: the content of model.json.
        logs: folder for the server's log and the guardian's status.

    Raises:
        InputError: the interpreter or the model has gone since its rule ran.
    """
    words = list(environment["command"])
    in_container = settings.environment == "container"
    path = Path(model["path"]).expanduser().absolute()
    for rule, file in (("server_environment", Path(words[0])), ("model", path)):
        if not file.exists() and not (in_container and rule == "server_environment"):
            raise InputError(f"servers.{server}: {file} is gone; make it again with: snakemake --forcerun {rule}")
    return LaunchSpec(
        model=str(path),
        served_model_name=model["name"],
        host=settings.host,
        port=settings.port,
        log_path=logs / "server.log",
        status_path=logs / "guardian.json",
        interpreter=None if in_container else Path(words[0]),
        container_command=words if in_container else (),
        module=VLLM_MODULE,
        arguments=settings.arguments | ({"load-format": "dummy"} if model["weights"] == "dummy" else {}),
        environment=settings.variables,
        gpus=server_gpus(server, settings),
        ready_timeout_s=settings.ready_timeout_s,
        grace_s=settings.grace_s,
    )


def check_before_launch(server: str, spec: LaunchSpec) -> None:
    """Check that the port is free, the model complete, and the GPUs free.

    Raises:
        InputError: with the configuration's key.
    """
    with config_keys(server, spec):
        preflight(spec)


@contextmanager
def config_keys(server: str, spec: LaunchSpec) -> Iterator[None]:
    """Make errors of the block name the configuration's keys: the modules of the server know no names."""
    try:
        yield
    except (InputError, RunError) as error:
        text = str(error).replace("model.path", f"models.{spec.served_model_name}.path")
        raise type(error)(re.sub(r"\bserver\.(?=[a-z_]+\b)(?!log|py)", f"servers.{server}.", text)) from error


async def attach_here(server: str, settings: AttachSettings, access: Access) -> AttachedServer:
    """Attach to a server on this machine.

    Raises:
        InputError: it does not answer, needs another key or certificate, lacks the model, or runs on another machine,
            whose power cannot be read here.
    """
    try:
        host = urlsplit(checked_endpoint(settings.endpoint)).hostname or ""
    except ValueError as error:
        raise InputError(str(error), key=f"servers.{server}.endpoint") from error
    if not await asyncio.to_thread(_is_local, host):
        raise InputError(
            f"servers.{server}.endpoint: {host} is another machine; its power cannot be read from here. "
            "Run the pipeline on the machine that serves"
        )
    return await attach(server, settings.endpoint, settings.model, access)


async def answers(base_url: str, access: Access) -> bool:
    """Return whether a server answers at all, whatever it says."""
    async with ServerPages(base_url, access) as pages:
        try:
            await pages.get("/health")
        except PageError:
            return False
    return True


def _is_local(host: str) -> bool:
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except socket.gaierror:
        return True  # not resolvable: `attach` reports it
    interfaces = psutil.net_if_addrs().values()
    local = {address.address.split("%")[0] for interface in interfaces for address in interface}
    return any(address in local or ipaddress.ip_address(address).is_loopback for address in addresses)
