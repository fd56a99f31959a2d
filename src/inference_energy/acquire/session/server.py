"""The server of a session: launched by us, or attached to. What is checked before anything is measured."""

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
from inference_energy.acquire.server.access import Access
from inference_energy.acquire.server.attach import AttachedServer, attach
from inference_energy.acquire.server.preflight import preflight
from inference_energy.acquire.server.spec import VLLM_MODULE, LaunchSpec
from inference_energy.errors import InputError, RunError


def gpus_of(server: str, settings: Mapping[str, Any]) -> list[str]:
    """UUIDs of the GPUs that a server uses; none on vLLM's CPU back end."""
    return gpu_uuids("none" if settings.get("back_end") == "cpu" else settings["gpus"], server)


def launch_spec(
    server: str,
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    model: Mapping[str, Any],
    logs: Path,
) -> LaunchSpec:
    """How to launch a server.

    Args:
        server: its key in the configuration.
        settings: as `SessionSpec.server_settings`.
        environment: the content of server_environment.json.
        model: the content of model.json.
        logs: folder for the server's log and the guardian's status.

    Raises:
        InputError: the interpreter or the model has gone since its rule ran.
    """
    words = list(environment["command"])
    in_container = settings["environment"] == "container"
    path = Path(model["path"]).expanduser().absolute()
    gone = [
        (rule, what)
        for rule, what in (("server_environment", Path(words[0])), ("model", path))
        if not what.exists() and not (in_container and rule == "server_environment")
    ]
    if gone:
        rule, what = gone[0]
        raise InputError(f"servers.{server}: {what} is gone; make it again with: snakemake --forcerun {rule}")
    return LaunchSpec(
        model=str(path),
        served_model_name=model["name"],
        host=settings["host"],
        port=settings["port"],
        log_path=logs / "server.log",
        status_path=logs / "guardian.json",
        interpreter=None if in_container else Path(words[0]),
        container_command=words if in_container else (),
        module=VLLM_MODULE,
        arguments=settings["arguments"] | ({"load-format": "dummy"} if model["weights"] == "dummy" else {}),
        environment=settings["variables"],
        gpus=gpus_of(server, settings),
        ready_timeout_s=settings["ready_timeout_s"],
        grace_s=settings["grace_s"],
    )


def check_before_launch(server: str, spec: LaunchSpec) -> None:
    """Port free, model complete, GPUs free.

    Raises:
        InputError: with the configuration's key.
    """
    with keys_of(server, spec):
        preflight(spec)


@contextmanager
def keys_of(server: str, spec: LaunchSpec) -> Iterator[None]:
    """Errors of the block name the configuration's keys, where the server's own modules know no names."""
    try:
        yield
    except (InputError, RunError) as error:
        text = str(error).replace("model.path", f"models.{spec.served_model_name}.path")
        raise type(error)(re.sub(r"\bserver\.(?=[a-z_]+\b)(?!log|py)", f"servers.{server}.", text)) from error


async def attach_here(server: str, settings: Mapping[str, Any], access: Access) -> AttachedServer:
    """Attach to a server on this machine.

    Raises:
        InputError: it does not answer, wants another key or certificate, lacks the model, or runs on another machine,
            whose power cannot be read here.
    """
    host = urlsplit(settings["endpoint"]).hostname or ""
    if not await asyncio.to_thread(_is_here, host):
        raise InputError(
            f"servers.{server}.endpoint: {host} is another machine; its power cannot be read from here. "
            "Run the pipeline on the machine that serves"
        )
    return await attach(server, settings["endpoint"], settings["model"], access)


def _is_here(host: str) -> bool:
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except socket.gaierror:
        return True  # not resolvable: attach says so in its own words
    own = {address.address.split("%")[0] for addresses in psutil.net_if_addrs().values() for address in addresses}
    return any(str(address) in own or ipaddress.ip_address(str(address)).is_loopback for address in found)
