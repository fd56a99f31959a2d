"""Waiting while everything that a measurement rests on is watched: the sampler, the server, Snakemake.

Waiting while everything that a measurement rests on is watched: the sampler, the server, Snakemake.

The server of a session: launched by us, or attached to. What is checked before anything is measured.
"""

import asyncio
import ipaddress
import re
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psutil

from inference_energy.acquire.gpus import gpu_uuids
from inference_energy.acquire.power.sampler_handle import SamplerProcess
from inference_energy.acquire.server.attach import Access, AttachedServer, attach
from inference_energy.acquire.server.guardian import is_gone
from inference_energy.acquire.server.guardian_client import WatchedProcess, snakemake_ancestors
from inference_energy.acquire.server.launch import RunningServer
from inference_energy.acquire.server.preflight import preflight
from inference_energy.acquire.server.settings import VLLM_MODULE, LaunchSpec
from inference_energy.acquire.session.live_stats import Progress
from inference_energy.errors import InputError, RunError

Result = TypeVar("Result")
TICK_S = 0.25


class Watchdog:
    """Runs coroutines and ends them when the sampler dies, the server ends, or Snakemake is gone.

    Attributes:
        server: the one that we launched, while it must run.
        attached: the process of one that we did not launch, where it is known.
    """

    def __init__(self, progress: Progress, sampler: SamplerProcess) -> None:
        self._progress = progress
        self._sampler = sampler
        self._owners: tuple[WatchedProcess, ...] = snakemake_ancestors()
        self.server: RunningServer | None = None
        self.attached: WatchedProcess | None = None

    async def wait(self, duration_s: float) -> None:
        """Let time pass."""
        until_s = time.monotonic() + duration_s
        while (left_s := until_s - time.monotonic()) > 0:
            await asyncio.sleep(min(TICK_S, left_s))
            self._check()

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run one coroutine to its end; if something watched fails first, cancel it and raise.

        Raises:
            RunError: what failed, with the end of the server's log if it was the server.
        """
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=TICK_S)
                if not task.done():
                    self._check()
            return await task
        except BaseException:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise

    def _check(self) -> None:
        self._progress.tick()
        if not self._sampler.alive():
            raise RunError(f"the power sampler ended in the middle of the run: {self._sampler.stop().ended_by}")
        if any(is_gone(owner.pid, owner.start_ticks) for owner in self._owners):
            raise RunError("Snakemake is gone; stopping")
        if self.server is not None and not self.server.alive():
            raise self.server.failure("the server ended in the middle of the run")
        if self.attached is not None and is_gone(*self.attached):
            raise RunError(f"the server, process {self.attached.pid}, ended in the middle of the run; its log says why")


def run_until_signal(main: Coroutine[Any, Any, Result], on_signal: Callable[[str], None]) -> Result:
    """Run a coroutine; SIGINT and SIGTERM cancel it, so that its clean-up runs.

    Raises:
        RunError: it was interrupted.
    """

    async def supervised() -> Result:
        task = asyncio.ensure_future(main)
        received: list[str] = []

        def stop(name: str) -> None:
            if not received:
                on_signal(name)
            received.append(name)
            task.cancel()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number.name)
        try:
            return await task
        except asyncio.CancelledError:
            raise RunError(f"interrupted by {' and '.join(dict.fromkeys(received)) or 'its caller'}") from None

    return asyncio.run(supervised())


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
