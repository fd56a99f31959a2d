"""What can be checked of a session without making or measuring anything: for `inference-energy check`.

What can be checked of a session without making or measuring anything: for `inference-energy check`.

The rule `idle_baseline`: power of the machine before the server starts.

It also makes the checks of the session that follows, since this is the first thing that is measured: what the session
would refuse is refused here.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference_energy.acquire.gpus import cards_of
from inference_energy.acquire.power.choose import candidates, choose
from inference_energy.acquire.power.sampler_handle import SamplerProcess
from inference_energy.acquire.server.attach import Access
from inference_energy.acquire.server.locks import acquire_locks
from inference_energy.acquire.server.preflight import check_gpus, check_port
from inference_energy.acquire.session.live_stats import LiveStats, Progress
from inference_energy.acquire.session.run import finish_log, labelled_power, log_tail_s, sampler_spec
from inference_energy.acquire.session.server_phase import (
    Watchdog,
    attach_here,
    check_before_launch,
    gpus_of,
    keys_of,
    launch_spec,
    run_until_signal,
)
from inference_energy.acquire.vllm_environment import has_vllm
from inference_energy.contracts.io import clock_anchor, write_json, write_table
from inference_energy.contracts.power import SCHEMA
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


ATTACHED = "the server was already running: its machine without it was never seen"


@dataclass(frozen=True)
class IdleSpec:
    """What the idle baseline is told: names, mode, server_settings and power as in `SessionSpec`, and its duration.

    Attributes:
        client: of an attached server what it wants of whoever asks: `api_key_env`, `ca_file`, `verify`.
    """

    machine: str
    server: str
    mode: str
    server_settings: Mapping[str, Any]
    power: Mapping[str, Any]
    cold_s: float
    client: Mapping[str, Any] = field(default_factory=dict)


def measure_idle(
    spec: IdleSpec, environment: Mapping[str, Any], model: Mapping[str, Any], power: Path, facts: Path, logs: Path
) -> None:
    """Log the power of the idle machine into `power`, and when that was into `facts`.

    `environment` and `model` are the contents of server_environment.json and model.json; `logs` keeps the sampler's
    log whatever happens.

    With an attached server there is no such time: `power` is empty and `facts` says why.

    Raises:
        InputError: something the session needs is wrong; nothing has been measured then.
        RunError: interrupted, or the sampler died.
    """
    if spec.mode == "attach":
        asyncio.run(attach_here(spec.server, spec.server_settings, Access.of(spec.client, attached=True)))
        write_table(power, [], SCHEMA, clock_anchor=clock_anchor(), source=[])
        write_json(facts, {"missing": ATTACHED, "start_ns": None, "end_ns": None, "duration_s": None})
        return
    launch = launch_spec(spec.server, spec.server_settings, environment, model, logs)
    gpus = gpus_of(spec.server, spec.server_settings)
    log = logs / "power.arrows"
    sampler = SamplerProcess(sampler_spec(spec.power, gpus, status=logs / "no-server.json"), log)
    so_far = LiveStats(power=lambda: labelled_power(sampler.latest()))
    progress = Progress(f"idle {spec.server}", [("cold idle", spec.cold_s)], so_far)

    async def measure() -> tuple[int, int]:
        with sampler:
            watch = Watchdog(progress, sampler)
            await watch.wait(1.0)  # the first readings, and the sampler's own start, are not idle
            progress.begin("cold idle")
            start_ns = time.monotonic_ns()
            await watch.wait(spec.cold_s)
            end_ns = time.monotonic_ns()
            await asyncio.sleep(log_tail_s(spec.power))
            return start_ns, end_ns

    logs.mkdir(parents=True, exist_ok=True)
    with keys_of(spec.server, launch), acquire_locks(cards_of(gpus)):
        check_before_launch(spec.server, launch)
        start_ns, end_ns = run_until_signal(measure(), lambda name: progress.say(f"{name}: stopping"))
    counted = finish_log(sampler.stop(), log, power)
    write_json(
        facts,
        {
            "missing": None,
            "start_ns": start_ns,
            "end_ns": end_ns,
            "duration_s": (end_ns - start_ns) / 1e9,
            "power": counted,
        },
    )
