"""The rule `idle_baseline`: power of the machine before the server starts.

It also makes the checks of the session that follows, since it measures first: an error of the session shows here.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference_energy.acquire.gpus import cards_of
from inference_energy.acquire.power.sampler_handle import SamplerProcess
from inference_energy.acquire.server.locks import acquire_locks
from inference_energy.acquire.server.pages import Access
from inference_energy.acquire.session.live_stats import LiveStats, Progress, labelled_power
from inference_energy.acquire.session.measurement import (
    Watchdog,
    finish_log,
    log_tail_s,
    run_until_signal,
    sampler_spec,
)
from inference_energy.acquire.session.server import (
    attach_here,
    check_before_launch,
    config_keys,
    launch_spec,
    server_gpus,
)
from inference_energy.acquire.session.settings import IdleSpec
from inference_energy.config.servers import AttachSettings
from inference_energy.contracts.documents.document import write_document
from inference_energy.contracts.documents.session import IdleDocument
from inference_energy.contracts.io import clock_anchor, write_table
from inference_energy.contracts.power import SCHEMA

ATTACHED = "the server was already running: its machine without it was never seen"


def measure_idle(
    spec: IdleSpec, environment: Mapping[str, Any], model: Mapping[str, Any], power: Path, facts: Path, logs: Path
) -> None:
    """Log the power of the idle machine into `power`, and its start and end into `facts`.

    With an attached server the machine is never idle: `power` is empty and `facts` states the reason.

    Args:
        spec: the baseline.
        environment: the content of server_environment.json.
        model: the content of model.json.
        power: power.parquet, to make.
        facts: idle.json, to make.
        logs: keeps the sampler's log, also after a failure.

    Raises:
        InputError: a setting of the session cannot be used; nothing has been measured then.
        RunError: interrupted, or the sampler died.
    """
    settings = spec.server_settings
    if isinstance(settings, AttachSettings):
        asyncio.run(attach_here(spec.server, settings, Access.from_config(spec.client, attached=True)))
        write_table(power, [], SCHEMA, clock_anchor=clock_anchor(), source=[])
        write_document(facts, IdleDocument(missing=ATTACHED, start_ns=None, end_ns=None, duration_s=None))
        return
    launch = launch_spec(spec.server, settings, environment, model, logs)
    gpus = server_gpus(spec.server, settings)
    log = logs / "power.arrows"
    sampler = SamplerProcess(sampler_spec(spec.power, gpus, status=logs / "no-server.json"), log)
    stats = LiveStats(power=lambda: labelled_power(sampler.latest()))
    progress = Progress(f"idle {spec.server}", [("cold idle", spec.cold_s)], stats)

    async def measure() -> tuple[int, int]:
        with sampler:
            watchdog = Watchdog(progress, sampler)
            await watchdog.wait(1.0)  # the first readings, and the sampler's own start, are not idle
            progress.begin("cold idle")
            start_ns = time.monotonic_ns()
            await watchdog.wait(spec.cold_s)
            end_ns = time.monotonic_ns()
            await asyncio.sleep(log_tail_s(spec.power))
            return start_ns, end_ns

    logs.mkdir(parents=True, exist_ok=True)
    with config_keys(spec.server, launch), acquire_locks(cards_of(gpus)):
        check_before_launch(spec.server, launch)
        start_ns, end_ns = run_until_signal(measure(), lambda name: progress.say(f"{name}: stopping"))
    record = finish_log(sampler.stop(), log, power)
    duration_s = (end_ns - start_ns) / 1e9
    write_document(
        facts, IdleDocument(missing=None, start_ns=start_ns, end_ns=end_ns, duration_s=duration_s, power=record)
    )
