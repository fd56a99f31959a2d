"""The settings of the rules `idle_baseline` and `session`, as JSON objects.

`plan.workflow_params` makes them from the configuration and takes the decisions that depend on the machine. A missing
key is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from inference_energy.acquire.load.settings import workload_settings
from inference_energy.config.load.client import ClientConfig
from inference_energy.config.servers import AttachSettings, LaunchSettings
from inference_energy.contracts.load_client import WorkloadSettings
from inference_energy.errors import InputError

ServerSettings = LaunchSettings | AttachSettings


@dataclass(frozen=True)
class CellSpec:
    """One stretch of load.

    Attributes:
        workload: the workload's name.
        settings: how its requests ask. Its prompts, lengths and turns are in the plan's files.
        arrival: the arrival process, for session.json.
    """

    name: str
    kind: str
    duration_s: float
    workload: str
    settings: WorkloadSettings
    arrival: Mapping[str, Any]

    @property
    def phase_name(self) -> str:
        """The name of the cell's phase in progress lines."""
        return "warm-up" if self.kind == "warmup" else f"window {self.name}"


@dataclass(frozen=True)
class SessionSpec:
    """A session.

    Attributes:
        session, machine, server: names.
        power: the section of that name.
        loaded_idle_s, post_idle_s, settle_s: durations around the load.
        client: the load client.
        metrics_interval_s: period of reading /metrics.
        cells: warm-up and windows in order.
    """

    session: str
    machine: str
    server: str
    server_settings: ServerSettings
    power: Mapping[str, Any]
    loaded_idle_s: float
    post_idle_s: float
    settle_s: float
    client: ClientConfig
    metrics_interval_s: float
    cells: tuple[CellSpec, ...]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "SessionSpec":
        """Read the specification of the rule `session`.

        Raises:
            InputError: a key is missing or has a wrong value.
        """
        try:
            return cls(
                session=content["session"],
                machine=content["machine"],
                server=content["server"],
                server_settings=_server_settings(content),
                power=content["power"],
                loaded_idle_s=content["loaded_idle_s"],
                post_idle_s=content["post_idle_s"],
                settle_s=content["settle_s"],
                client=ClientConfig.model_validate(content["client"]),
                metrics_interval_s=content["metrics_interval_s"],
                cells=tuple(
                    CellSpec(
                        name=cell["name"],
                        kind=cell["kind"],
                        duration_s=cell["duration_s"],
                        workload=cell["workload_name"],
                        settings=workload_settings(cell["workload"]),
                        arrival=cell["arrival"],
                    )
                    for cell in content["cells"]
                ),
            )
        except KeyError as error:
            raise InputError(f"--spec: the key {error} is missing") from error

    @property
    def mode(self) -> Literal["launch", "attach"]:
        """Whether the server is launched, or runs already."""
        return "launch" if isinstance(self.server_settings, LaunchSettings) else "attach"

    def planned_s(self) -> list[tuple[str, float]]:
        """Return the phases with their expected durations [s], for the estimate of the time that remains."""
        launch = self.mode == "launch"
        phases = [("launch", 60.0)] if launch else []
        phases.append(("loaded idle", self.settle_s + self.loaded_idle_s))
        phases += [(cell.phase_name, cell.duration_s + min(5.0, self.client.drain_s)) for cell in self.cells]
        if launch:
            phases += [("stop", 5.0), ("post-run idle", self.settle_s + self.post_idle_s)]
        return phases


@dataclass(frozen=True)
class IdleSpec:
    """An idle baseline.

    Attributes:
        machine, server: names.
        power: the section of that name.
        cold_s: its duration.
        client: for an attached server the client's `api_key_env`, `ca_file` and `verify`.
    """

    machine: str
    server: str
    server_settings: ServerSettings
    power: Mapping[str, Any]
    cold_s: float
    client: ClientConfig

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "IdleSpec":
        """Read the specification of the rule `idle_baseline`.

        Raises:
            InputError: a key is missing or has a wrong value.
        """
        try:
            return cls(
                machine=content["machine"],
                server=content["server"],
                server_settings=_server_settings(content),
                power=content["power"],
                cold_s=content["cold_s"],
                client=ClientConfig.model_validate(content["client"]),
            )
        except KeyError as error:
            raise InputError(f"--spec: the key {error} is missing") from error


def _server_settings(content: Mapping[str, Any]) -> ServerSettings:
    model = LaunchSettings if content["mode"] == "launch" else AttachSettings
    return model.model_validate(content["server_settings"])
