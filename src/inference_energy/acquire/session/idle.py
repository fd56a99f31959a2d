"""The rule `idle_baseline`: power of the machine before the server starts.

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
from inference_energy.acquire.power.process import SamplerProcess
from inference_energy.acquire.server.access import Access
from inference_energy.acquire.server.locks import acquire_locks
from inference_energy.acquire.session.power import finish_log, labelled_power, log_tail_s, sampler_spec
from inference_energy.acquire.session.progress import Progress
from inference_energy.acquire.session.server import attach_here, check_before_launch, gpus_of, keys_of, launch_spec
from inference_energy.acquire.session.so_far import SoFar
from inference_energy.acquire.session.watching import Watch, run_until_signal
from inference_energy.contracts.power import SCHEMA
from inference_energy.contracts.tables import clock_anchor, write_json, write_table

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
    so_far = SoFar(power=lambda: labelled_power(sampler.latest()))
    progress = Progress(f"idle {spec.server}", [("cold idle", spec.cold_s)], so_far)

    async def measure() -> tuple[int, int]:
        with sampler:
            watch = Watch(progress, sampler)
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
