"""The checks of `inference-energy check`: what a session needs, without making or measuring anything."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference_energy.acquire.power.choose import candidates, choose
from inference_energy.acquire.server.pages import Access
from inference_energy.acquire.server.preflight import check_gpus, check_port
from inference_energy.acquire.session.measurement import sampler_spec
from inference_energy.acquire.session.server import attach_here, server_gpus
from inference_energy.acquire.session.settings import SessionSpec
from inference_energy.acquire.vllm_environment import has_vllm
from inference_energy.acquire.vllm_flags import check_arguments, known_flags
from inference_energy.config.servers import AttachSettings
from inference_energy.errors import InputError


def check_server(session: Mapping[str, Any], environment: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """Check power sources, GPUs, flags, port or endpoint, interpreter and local model; nothing is made or measured.

    Args:
        session: the specification of the rule `session`.
        environment: the specification of the rule `server_environment`.
        model: the specification of the rule `model`.

    Returns:
        A sentence that names the server and the power sources.

    Raises:
        InputError: something is missing; the message names the key.
    """
    spec = SessionSpec.from_dict(session)
    server, settings = spec.server, spec.server_settings
    gpus = server_gpus(server, settings)
    sources = choose(spec.power["sources"], candidates(sampler_spec(spec.power, gpus)))
    power = ", ".join(f"{source.name} ({source.grade})" for source in sources)
    if isinstance(settings, AttachSettings):
        access = Access.from_config(spec.client, attached=True)
        attached = asyncio.run(attach_here(server, settings, access))
        return f"attach to {attached.base_url}, model {attached.model}; power from {power}"
    if (known := known_flags(environment)) is not None:
        check_arguments(server, settings.arguments, known)
    try:
        check_port(settings.host, settings.port)
        check_gpus(gpus)
    except InputError as error:
        raise InputError(str(error).replace("server.", f"servers.{server}.", 1)) from error
    if environment["environment"] == "interpreter" and not has_vllm(str(environment["interpreter"])):
        raise InputError(f"servers.{server}.interpreter: {environment['interpreter']} is not a Python that has vLLM")
    if model["source"] == "local" and not (Path(model["path"]).expanduser() / "config.json").is_file():
        raise InputError(f"models.{model['name']}.path: {model['path']} holds no config.json; write a model's folder")
    devices = ", ".join(gpus) or "the CPU"
    return f"launch {model['name']} on {devices} with vLLM from `{environment['environment']}`; power from {power}"
