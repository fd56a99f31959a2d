"""Launch of a server: checks, locks, guardian, readiness; and its stop, so that nothing of it is left.

Ready means three things at once: *our* process is alive, /health answers 200, and /v1/models lists the model under the
name we gave. Health alone is not enough: with a port in use, the old server answers it.

The server's environment is written out, not inherited. Snakemake sets OMP_NUM_THREADS and its like and points TMPDIR
into its own folder; a shell may hold VLLM_* variables. Any of them can change the measurement, so only the variables
named here pass, and they can be recorded.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psutil

from inference_energy.acquire.gpus import cards_of
from inference_energy.acquire.power.simulated import VARIABLE as SIMULATED
from inference_energy.acquire.server.attach import base_url
from inference_energy.acquire.server.guardian import GuardianStatus
from inference_energy.acquire.server.guardian_client import Guardian, GuardianSpec, WatchedProcess, snakemake_ancestors
from inference_energy.acquire.server.locks import acquire_locks
from inference_energy.acquire.server.pages import PageError, ServerPages
from inference_energy.acquire.server.preflight import listening_pids, port_is_free, preflight
from inference_energy.acquire.server.settings import LaunchSpec, command
from inference_energy.errors import RunError

PASSED_ON = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
        *("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "HF_HUB_OFFLINE"),
    }
)
# No usage reports: they are traffic and CPU time that belong to no request.
DEFAULTS = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
SECRET = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
MASK = "(masked)"


def server_environment(spec: LaunchSpec, base: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of the server; `base` is the caller's.

    In rising order: the variables passed on from `base`, the defaults, CUDA_VISIBLE_DEVICES from the spec's GPUs (empty
    without any: a CPU server sees none), the spec's own variables. The interpreter's folder comes first on PATH, as in
    an activated environment: vLLM calls ninja and the like by name. On a simulated machine its variable and PYTHONPATH,
    which holds its vLLM, pass too.
    """
    passed_on = PASSED_ON | {SIMULATED, "PYTHONPATH"} if base.get(SIMULATED) else PASSED_ON
    environment = {name: value for name, value in base.items() if name in passed_on}
    if ".snakemake" in Path(environment.get("TMPDIR", "")).parts:
        del environment["TMPDIR"]
    if spec.interpreter is not None:
        path = environment.get("PATH", "/usr/local/bin:/usr/bin:/bin")
        environment["PATH"] = f"{spec.interpreter.parent}:{path}"
    return {
        **dict(sorted(environment.items())),
        **DEFAULTS,
        "CUDA_VISIBLE_DEVICES": ",".join(spec.gpus),
        **spec.environment,
    }


def recorded_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment, sorted, with secrets masked: by name and as passwords in URLs."""
    return {name: _recorded(name, value) for name, value in sorted(environment.items())}


def _recorded(name: str, value: str) -> str:
    if SECRET.search(name):
        return MASK
    if "@" in value and "://" in value:
        parts = urlsplit(value)
        if parts.password or parts.username:
            return parts._replace(netloc=f"{MASK}@{parts.netloc.rpartition('@')[2]}").geturl()
    return value


ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
READ_AT_MOST = 65536


def log_tail(path: Path, lines: int, start: int = 0) -> list[str]:
    """Return the last lines that are not blank, without colors; of a redrawn progress bar its last state.

    `start` is the offset (bytes) at which this server's part of the log begins.
    """
    try:
        with path.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(start, log.tell() - READ_AT_MOST))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    drawn = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    kept = [line for line in (ANSI.sub("", line).rstrip() for line in drawn) if line]
    return kept[-lines:]


Progress = Callable[[float, str], None]
POLL_INTERVAL_S = 0.25
PORT_RELEASE_LIMIT_S = 5.0
SHOWN_LINES = 15


@dataclass(slots=True)
class RunningServer:
    """A server that was ready `ready_after_s` seconds after its launch. Use it as an async context, or stop it."""

    spec: LaunchSpec
    guardian: Guardian
    base_url: str
    log_start: int
    ready_after_s: float = float("nan")
    version: str | None = None
    final: GuardianStatus | None = None

    @property
    def server_pid(self) -> int:
        """The pid of the API server; vLLM's engine and workers are its descendants."""
        return self.guardian.server_pid

    def alive(self) -> bool:
        """Return whether the API server's process is running."""
        return self.guardian.alive()

    def tail(self, lines: int = SHOWN_LINES) -> list[str]:
        """Return the last lines of this server's log."""
        return log_tail(self.spec.log_path, lines, self.log_start)

    async def ended(self) -> GuardianStatus:
        """Wait until the server has ended for any reason and all of it is gone; return the final status.

        Run it beside the load: the server also ends when Snakemake does.
        """
        while not self.guardian.ended():
            await asyncio.sleep(POLL_INTERVAL_S)
        return await asyncio.to_thread(self.guardian.stop)

    def failure(self, what: str) -> RunError:
        """Return the error to raise: the event, the end of the log, and the log's path."""
        shown = "\n".join(f"  | {line}" for line in self.tail()) or "  | (the log is empty)"
        return RunError(f"{what}\nThe last lines of {self.spec.log_path}:\n{shown}")

    async def stop(self) -> GuardianStatus:
        """Stop the server and return the guardian's final status; a second call returns the same.

        Raises:
            RunError: a process of the server, or its hold on the port, is left.
        """
        if self.final is not None:
            return self.final
        final = await asyncio.to_thread(self.guardian.stop)
        if final.leftover_pids:
            raise self.failure(f"the server was stopped, but its processes {final.leftover_pids} are still there")
        deadline = time.monotonic() + PORT_RELEASE_LIMIT_S
        while not port_is_free(self.spec.host, self.spec.port):
            if time.monotonic() > deadline:
                raise self.failure(f"the server was stopped, but port {self.spec.port} is still in use")
            await asyncio.sleep(POLL_INTERVAL_S)
        self.final = final
        return final

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await _stop_after(self, error)


async def launch_server(
    spec: LaunchSpec,
    watch: Sequence[WatchedProcess] | None = None,
    own_pids: Collection[int] = (),
    on_progress: Progress | None = None,
) -> RunningServer:
    """Launch a server and wait until it is ready.

    Args:
        spec: the server.
        watch: processes without which the server must not go on; None takes the Snakemake processes above us.
        own_pids: processes that may hold the GPU now, such as our own calibration.
        on_progress: called about four times a second with the seconds since launch and the log's last line.

    Raises:
        InputError: a check before the launch failed, or a GPU is locked by another run.
        RunError: the server died or was not ready in time; all of it has been stopped.
    """
    log_path, status_path = spec.log_path.absolute(), spec.status_path.absolute()
    with acquire_locks(
        cards_of(spec.gpus)
    ) as locks:  # closes ours; the guardian holds its own until the server is gone
        await asyncio.to_thread(preflight, spec, own_pids)  # may wait for the driver; the caller's tasks go on
        log_start = log_path.stat().st_size if log_path.exists() else 0
        launched = time.monotonic()
        guardian = Guardian.start(
            GuardianSpec(
                command=command(spec),
                environment=server_environment(spec, os.environ),
                cwd=log_path.parent if spec.cwd is None else spec.cwd.absolute(),
                log_path=log_path,
                status_path=status_path,
                grace_s=spec.grace_s,
                watch=snakemake_ancestors() if watch is None else watch,
                lock_fds=locks.fds,
            )
        )
    server = RunningServer(spec, guardian, base_url(spec.host, spec.port), log_start)
    try:
        await _wait_until_ready(server, launched, on_progress)
    except BaseException as error:
        await _stop_after(server, error)
        raise
    return server


async def _wait_until_ready(server: RunningServer, launched: float, on_progress: Progress | None) -> None:
    timeout_s = server.spec.ready_timeout_s
    async with ServerPages(server.base_url) as pages:
        while not await _answers(pages, server):
            elapsed_s = time.monotonic() - launched
            if not server.alive():
                final = await server.ended()
                raise server.failure(f"the server ended after {elapsed_s:.0f} s, before it was ready: {_cause(final)}")
            if elapsed_s > timeout_s:
                raise server.failure(f"the server was not ready within {timeout_s:.0f} s (server.ready_timeout_s)")
            if on_progress is not None:
                on_progress(elapsed_s, "".join(server.tail(1)))
            await asyncio.sleep(POLL_INTERVAL_S)
        server.ready_after_s = time.monotonic() - launched
        server.version = await pages.version()
    foreign = _foreign_listeners(server)
    if foreign:
        raise server.failure(f"port {server.spec.port} is served by another process, {sorted(foreign)}, not by ours")


async def _answers(pages: ServerPages, server: RunningServer) -> bool:
    """Return whether our process is alive and answers as the server that we launched."""
    if not server.alive() or await pages.unhealthy():
        return False
    try:
        models = await pages.models()
    except PageError:
        return False
    return server.spec.served_model_name in models and server.alive()


def _foreign_listeners(server: RunningServer) -> set[int]:
    """Return the listeners on the port that are not ours; none of a container, whose processes may not be below us."""
    pids = listening_pids(server.spec.port)
    ours = {process.pid for process in psutil.Process(server.guardian.pid).children(recursive=True)}
    return set() if server.spec.container_command or pids & ours else pids


def _cause(final: GuardianStatus) -> str:
    code = final.return_code
    if final.reason != "the server ended by itself" or code is None:
        return str(final.reason)
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


async def _stop_after(server: RunningServer, error: BaseException | None) -> None:
    """Stop at the end of a block; an error of the block is the one to raise, with an error of the stop as a note."""
    try:
        await server.stop()
    except RunError as stop_error:
        if error is None:
            raise
        error.add_note(str(stop_error))
