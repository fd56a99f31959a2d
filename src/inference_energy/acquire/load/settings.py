"""Where the API key is: in an environment variable, whose name is all that specifications, logs and results hold.

Where the API key is: in an environment variable, whose name is all that specifications, logs and results hold.

What a team of load processes, and each of them, is told: one JSON object.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inference_energy.acquire.load.http.request import ClientSettings, WorkloadSettings
from inference_energy.errors import InputError

USUAL = "OPENAI_API_KEY"


def api_key_env(named: str | None, *, attached: bool, setting: str = "client.api_key_env") -> str | None:
    """The environment variable that holds the API key; None if there is no key to send.

    Args:
        named: what the user named.
        attached: a server that is not ours may want the usual key; one that we launch has none.
        setting: what the user calls that setting.

    Raises:
        InputError: the named variable is not set.
    """
    if named is None:
        return USUAL if attached and os.environ.get(USUAL) else None
    if not os.environ.get(named):
        raise InputError(f"the environment variable {named} is not set; export it with the key", key=setting)
    return named


LOGS = ("requests", "chunks", "answers")
"""Names of the worker logs; here, because the parent of a load test has no Arrow in its memory."""


def clear_logs(folder: Path) -> None:
    """Remove the logs of an earlier run, which may have had more workers."""
    for name in LOGS:
        for path in folder.glob(f"{name}-*.arrows"):
            path.unlink()


_OF_THE_CLIENT = ("api", "stream", "ignore_eos", "history", "keep_answers", "chunk_times", "parameters")

WORKLOAD_SETTINGS = (*_OF_THE_CLIENT, "prefix_reuse")
"""The settings of a workload that its schedule and prompts do not hold."""


@dataclass(frozen=True, slots=True)
class CellSettings:
    """One cell: how long it sends, and the workload's settings that concern the client.

    Attributes:
        duration_s: how long requests are sent.
        workload: `WORKLOAD_SETTINGS`, see `exchange.settings.WorkloadSettings`; what is left out has its default.
    """

    duration_s: float
    workload: Mapping[str, Any]

    def settings(self) -> WorkloadSettings:
        """The workload's settings."""
        return WorkloadSettings(**{name: self.workload[name] for name in _OF_THE_CLIENT if name in self.workload})

    @property
    def prefix_reuse(self) -> bool:
        """Whether the server may reuse the prefix of a prompt sent before."""
        return bool(self.workload.get("prefix_reuse", False))


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """A load.

    Attributes:
        endpoints: base URLs without /v1, used in turn.
        model: its name there.
        cells: by name.
        prompts, schedule: the plan's files.
        folder: where the logs are written.
        workers: number of processes.
        request_timeout_s: a request that takes longer has failed.
        drain_s: after a cell, how long requests in flight are waited for.
        transport: `auto`, `plain` or `aiohttp`.
        api_key_env: the environment variable with the API key; never the key itself.
        ca_file, verify: how a server's certificate is checked.
        connections: most connections of one process to an endpoint.
    """

    endpoints: tuple[str, ...]
    model: str
    cells: Mapping[str, CellSettings]
    prompts: str
    schedule: str
    folder: str
    workers: int = 1
    request_timeout_s: float = 300.0
    drain_s: float = 60.0
    transport: str = "auto"
    api_key_env: str | None = None
    ca_file: str | None = None
    verify: bool = True
    connections: int | None = None

    def endpoints_from(self, worker: int) -> tuple[str, ...]:
        """The endpoints in a worker's order: each begins with another, lest all begin with the same."""
        first = worker % len(self.endpoints) if self.endpoints else 0
        return self.endpoints[first:] + self.endpoints[:first]

    def client(self, environment: Mapping[str, str]) -> ClientSettings:
        """The client's settings, with the API key from the environment."""
        return ClientSettings(
            request_timeout_s=self.request_timeout_s,
            transport=self.transport,  # type: ignore[arg-type]
            api_key=environment.get(self.api_key_env) if self.api_key_env else None,
            ca_file=Path(self.ca_file) if self.ca_file else None,
            verify=self.verify,
            connections=self.connections,
        )

    def write(self, path: Path) -> None:
        """Write it for the workers."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "LoadSpec":
        """What `write` wrote."""
        content = json.loads(path.read_text())
        cells = {name: CellSettings(**settings) for name, settings in content["cells"].items()}
        return cls(**{**content, "cells": cells, "endpoints": tuple(content["endpoints"])})
