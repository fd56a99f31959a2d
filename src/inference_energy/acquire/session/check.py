"""What can be checked of a session without making or measuring anything: for `inference-energy check`."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference_energy.acquire.power.choose import candidates, choose
from inference_energy.acquire.server.access import Access
from inference_energy.acquire.server.preflight import check_gpus, check_port
from inference_energy.acquire.session.power import sampler_spec
from inference_energy.acquire.session.server import attach_here, gpus_of
from inference_energy.acquire.vllm.detect import has_vllm
from inference_energy.errors import InputError


def check_server(session: Mapping[str, Any], environment: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """Check power sources, GPUs, port or endpoint, interpreter and local model; say what would be used.

    Args:
        session: the specification of the rule `session`.
        environment: that of `server_environment`.
        model: that of `model`.

    Raises:
        InputError: something is missing; the message names the key.
    """
    server, settings = session["server"], session["server_settings"]
    gpus = gpus_of(server, settings)
    sources = choose(session["power"]["sources"], candidates(sampler_spec(session["power"], gpus)))
    power = ", ".join(f"{source.name} ({source.grade})" for source in sources)
    if session["mode"] == "attach":
        attached = asyncio.run(attach_here(server, settings, Access.of(session["client"], attached=True)))
        return f"attach to {attached.base_url}, model {attached.model}; power from {power}"
    try:
        check_port(settings["host"], settings["port"])
        check_gpus(gpus)
    except InputError as error:
        raise InputError(str(error).replace("server.", f"servers.{server}.", 1)) from error
    if environment["environment"] == "interpreter" and not has_vllm(str(environment["interpreter"])):
        raise InputError(f"servers.{server}.interpreter: {environment['interpreter']} is not a Python that has vLLM")
    if model["source"] == "local" and not (Path(model["path"]).expanduser() / "config.json").is_file():
        raise InputError(f"models.{model['name']}.path: {model['path']} holds no config.json; write a model's folder")
    devices = ", ".join(gpus) or "the CPU"
    return f"launch {model['name']} on {devices} with vLLM from `{environment['environment']}`; power from {power}"
