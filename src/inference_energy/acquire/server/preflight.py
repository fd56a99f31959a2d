"""Checks before a server is launched, so that a mistake costs a second and not the two minutes of a start.

vLLM itself reports a missing model after 20 s as a hub error, and with a port in use its health check is answered by
the *old* server.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import psutil
import pynvml

from inference_energy.acquire.gpus import cards_of
from inference_energy.acquire.server.settings import LaunchSpec
from inference_energy.errors import InputError


def listening_pids(port: int) -> set[int]:
    """Return the processes that listen on the port; none if they are another user's."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return set()
    return {
        connection.pid
        for connection in connections
        if connection.status == psutil.CONN_LISTEN and connection.pid and connection.laddr[1:2] == (port,)
    }


def port_is_free(host: str, port: int) -> bool:
    """Return whether a server could bind the port as uvicorn does (SO_REUSEADDR: old connections do not matter).

    Raises:
        OSError: the host is no address of this machine.
    """
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    return False
                raise
    return True


HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
RELEASE_LIMIT_S = 5.0  # the driver lists an ended process for a moment


def preflight(spec: LaunchSpec, own_pids: Collection[int] = ()) -> None:
    """Run all checks; raise InputError, with the config key in the message, for the first that fails."""
    check_interpreter(spec.interpreter)
    check_model(spec.model)
    check_port(spec.host, spec.port)
    check_gpus(spec.gpus, own_pids)


def check_interpreter(interpreter: Path | None) -> None:
    """Check that the Python of the server exists and can be executed (None: a container brings its own)."""
    if interpreter is not None and not (interpreter.is_file() and os.access(interpreter, os.X_OK)):
        raise InputError(f"server.interpreter: {interpreter} is no executable; write the path of a Python with vLLM")


def check_model(model: str) -> None:
    """Check that a path holds config.json or is a .gguf file, or that the name looks like a hub's (owner/model)."""
    path = Path(model).expanduser()
    looks_like_path = model.startswith(("/", ".", "~")) or model.count("/") > 1
    if path.exists():
        if not (path / "config.json").is_file() and not (path.is_file() and path.suffix == ".gguf"):
            raise InputError(f"model.path: {model} holds no config.json; write the folder of a model, as downloaded")
    elif looks_like_path:
        raise InputError(f"model.path: {model} does not exist; write a model's folder or its name on the hub")
    elif not HUB_ID.fullmatch(model):
        raise InputError(f"model.path: {model!r} is neither a folder nor a name on the hub (owner/model)")


def check_port(host: str, port: int) -> None:
    """Check that the port is free."""
    if not 0 < port < 65536:
        raise InputError(f"server.port: {port} is no port; write one from 1 to 65535")
    try:
        free = port_is_free(host, port)
    except OSError as error:
        raise InputError(f"server.host: {host} cannot be bound ({error}); write an address of this machine") from error
    if not free:
        pids = sorted(listening_pids(port))
        by = f" by process {', '.join(f'{pid} ({process_name(pid)})' for pid in pids)}" if pids else ""
        raise InputError(f"server.port: {port} on {host} is in use{by}; stop that server or write another port")


def check_gpus(
    gpus: Sequence[str], own_pids: Collection[int] = (), nvml: Any = pynvml, release_limit_s: float = RELEASE_LIMIT_S
) -> None:
    """Check that no foreign process computes on the GPUs (UUIDs). Without NVML nothing is checked."""
    if not gpus:
        return
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return
    try:
        # For a MIG instance also its card, whose other instances share the power.
        handles = {uuid: _handle(uuid, nvml) for uuid in dict.fromkeys([*gpus, *cards_of(gpus, nvml)])}
        deadline = time.monotonic() + release_limit_s
        while foreign := [
            text for uuid, handle in handles.items() for text in _foreign(uuid, handle, set(own_pids), nvml)
        ]:
            if time.monotonic() >= deadline:
                raise InputError(f"server.gpus: in use by others: {'; '.join(foreign)}; stop them or choose other GPUs")
            time.sleep(0.25)
    finally:
        nvml.nvmlShutdown()


def _handle(uuid: str, nvml: Any) -> Any:
    try:
        return nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError as error:
        uuids = [
            nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index)) for index in range(nvml.nvmlDeviceGetCount())
        ]
        raise InputError(f"server.gpus: no GPU {uuid} here ({error}); there are: {', '.join(uuids)}") from error


def _foreign(uuid: str, handle: Any, own_pids: set[int], nvml: Any) -> list[str]:
    try:
        running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return []  # some devices cannot tell
    texts = []
    for process in running:
        if process.pid not in own_pids:
            memory = "unknown memory" if process.usedGpuMemory is None else f"{process.usedGpuMemory / 2**20:.0f} MiB"
            texts.append(f"process {process.pid} ({process_name(process.pid)}), {memory}, on {uuid}")
    return texts


def process_name(pid: int) -> str:
    """Return the name of a process, or why there is none: it may be in another container."""
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "name not visible from here"
