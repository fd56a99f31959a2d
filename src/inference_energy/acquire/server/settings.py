"""A server to launch, and its command line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference_energy.errors import InputError

VLLM_MODULE = "vllm.entrypoints.openai.api_server"
# These have fields of their own in the spec, on which checks and clients rely.
RESERVED_ARGUMENTS = {
    "model": "model.path",
    "revision": "model.revision",
    "served-model-name": "model.name",
    "host": "server.host",
    "port": "server.port",
}

Argument = bool | int | float | str | None | Sequence[object] | Mapping[str, object]


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """One server to launch.

    Attributes:
        model: folder of the model, or its name on the hub.
        served_model_name: its name for clients.
        port: TCP port; `host` is the address to bind.
        log_path: the server's output is appended here.
        status_path: the guardian's status file (JSON), rewritten at each change.
        interpreter: the Python that has vLLM; or else
        container_command: the words before `-m vllm...`, up to the container's Python, such as
            `("apptainer", "exec", "--nv", "vllm.sif", "python3")`.
        module: the module to run with `-m`; `script` runs a file instead.
        revision: the model's revision on the hub.
        arguments: vLLM's flags without the dashes; see `command`.
        environment: variables to add to the server's environment, over all others.
        gpus: UUIDs of the GPUs to use; none hides all of them.
        ready_timeout_s: how long the start may take.
        grace_s: how long the stop may take before SIGKILL.
        cwd: the server's working directory; None takes the log's folder.
    """

    model: str
    served_model_name: str
    port: int
    log_path: Path
    status_path: Path
    interpreter: Path | None = None
    container_command: Sequence[str] = ()
    module: str = VLLM_MODULE
    script: Path | None = None
    revision: str | None = None
    host: str = "127.0.0.1"
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    gpus: Sequence[str] = ()
    ready_timeout_s: float = 900.0
    grace_s: float = 30.0
    cwd: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a spec with two ways to run the server, or none."""
        if (self.interpreter is None) == (not self.container_command):
            raise InputError("server: write either an interpreter (a Python with vLLM) or a container_command")


def command(spec: LaunchSpec) -> list[str]:
    """Return the server's command line.

    The value of an argument decides its form: true `--flag`, false `--no-flag`, null nothing, a list `--flag a b`, a
    mapping `--flag {"json": ...}`, anything else `--flag value`. Underscores in names become dashes.

    Raises:
        InputError: an argument has a key of its own elsewhere, or is no flag's name.
    """
    words = [str(spec.interpreter)] if spec.interpreter is not None else list(spec.container_command)
    words += ["-m", spec.module] if spec.script is None else [str(spec.script)]
    words += ["--model", spec.model, "--served-model-name", spec.served_model_name]
    words += ["--host", spec.host, "--port", str(spec.port)]
    if spec.revision is not None:
        words += ["--revision", spec.revision]
    for name, value in spec.arguments.items():
        words += _argument(name, value)
    return words


def _argument(name: str, value: Argument) -> list[str]:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise InputError(f"server.arguments: {name!r} is no flag; write its name without the dashes before it")
    first, dot, rest = name.partition(".")  # --compilation-config.use_inductor: fields keep their underscores
    flag = f"{first.replace('_', '-')}{dot}{rest}"
    if flag in RESERVED_ARGUMENTS:
        raise InputError(f"server.arguments.{name}: write it as {RESERVED_ARGUMENTS[flag]}")
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [f"--{flag}", *(_text(item) for item in value)]
    text = _text(value)
    # argparse would take a value with a leading dash for the next flag.
    return [f"--{flag}={text}"] if text.startswith("-") else [f"--{flag}", text]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
