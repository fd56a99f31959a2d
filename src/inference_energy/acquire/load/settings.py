"""The order for a pool of load processes, one JSON object.

It names the environment variable of the API key and never holds the key: neither do logs and results.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from inference_energy.contracts.load_client import ClientSettings, WorkloadSettings
from inference_energy.errors import InputError

if TYPE_CHECKING:
    # Processes that send load stay small: this class needs pydantic, its values do not.
    from inference_energy.config.load.client import ClientConfig

DEFAULT_KEY_ENV = "OPENAI_API_KEY"


def api_key_env(configured: str | None, *, attached: bool, setting: str = "client.api_key_env") -> str | None:
    """Return the environment variable that holds the API key; None if there is no key to send.

    Args:
        configured: the variable that the user named.
        attached: a server that is not ours may want the key of `DEFAULT_KEY_ENV`; one that we launch has none.
        setting: the user's name of that setting.

    Raises:
        InputError: the named variable is not set, or what it holds cannot stand in a header.
    """
    name = configured or DEFAULT_KEY_ENV
    key = os.environ.get(name)
    if configured is None and not (attached and key):
        return None
    if not key:
        raise InputError(f"the environment variable {name} is not set; export it with the key", key=setting)
    if not re.fullmatch("[!-~]+", key):
        raise InputError(
            f"the environment variable {name} holds a blank, a line break or another character that an API key "
            "cannot; export the key alone",
            key=setting,
        )
    return name


def workload_settings(workload: Mapping[str, Any]) -> WorkloadSettings:
    """Pick the client's settings from the content of a workload's section.

    Raises:
        KeyError: one is missing.
    """
    return WorkloadSettings(**{field.name: workload[field.name] for field in fields(WorkloadSettings)})


@dataclass(frozen=True, slots=True)
class CellSettings:
    """One cell: how long requests are sent [s], and how they ask."""

    duration_s: float
    workload: WorkloadSettings


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
        drain_s: after a cell, how long to wait for requests in flight.
        api_key_env: the environment variable with the API key.
        client: how requests are sent, without the API key.
    """

    endpoints: tuple[str, ...]
    model: str
    cells: Mapping[str, CellSettings]
    prompts: str
    schedule: str
    folder: str
    workers: int
    drain_s: float
    api_key_env: str | None
    client: ClientSettings

    @classmethod
    def from_config(
        cls,
        config: "ClientConfig",
        api_key_env: str | None,
        *,
        endpoints: tuple[str, ...],
        model: str,
        cells: Mapping[str, CellSettings],
        prompts: Path,
        schedule: Path,
        folder: Path,
    ) -> Self:
        """Build a load from the client's section; `api_key_env` is the result of the function of that name."""
        return cls(
            endpoints=endpoints,
            model=model,
            cells=cells,
            prompts=str(prompts.absolute()),
            schedule=str(schedule.absolute()),
            folder=str(folder.absolute()),
            workers=config.workers,
            drain_s=config.drain_s,
            api_key_env=api_key_env,
            client=ClientSettings(
                request_timeout_s=config.request_timeout_s,
                transport=config.transport,
                ca_file=config.ca_file,
                verify=config.verify,
                connections=config.connections,
                max_answer_mib=config.max_answer_mib,
            ),
        )

    def endpoints_from(self, worker: int) -> tuple[str, ...]:
        """Return the endpoints in a worker's order: each begins with another, so that they are used evenly."""
        first = worker % len(self.endpoints) if self.endpoints else 0
        return self.endpoints[first:] + self.endpoints[:first]

    def client_with_key(self, environment: Mapping[str, str]) -> ClientSettings:
        """Return the client's settings with the API key from the environment."""
        return replace(self.client, api_key=environment.get(self.api_key_env) if self.api_key_env else None)

    def write(self, path: Path) -> None:
        """Write the load for the workers."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that `write` wrote."""
        return msgspec.json.decode(path.read_bytes(), type=cls)
