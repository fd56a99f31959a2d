"""What a session is told: one JSON object, made from the configuration by `plan.specs`.

The configuration's models are not imported here on purpose: whatever this module imports repeats every measurement
when it is edited.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference_energy.acquire.load.settings import WORKLOAD_SETTINGS


@dataclass(frozen=True)
class CellSpec:
    """One stretch of load as the session needs it.

    Attributes:
        workload: the workload's name.
        settings: what of the workload concerns the client, as `acquire.load.worker.spec.CellSettings` has it. What
            else it says, of prompts, lengths and turns, is in the plan's files.
        arrival: the arrival process, noted in session.json.
    """

    name: str
    kind: str
    duration_s: float
    workload: str
    settings: Mapping[str, Any]
    arrival: Mapping[str, Any]


@dataclass(frozen=True)
class SessionSpec:
    """A session.

    Attributes:
        session, machine, server: names.
        mode: `launch` or `attach`.
        server_settings: for launch: environment, interpreter, container, host, port, gpus, arguments, variables,
            ready_timeout_s, grace_s; for attach: endpoint, model, gpus.
        power: interval_s, sources, modelled.
        loaded_idle_s, post_idle_s, settle_s: durations around the load.
        client: request_timeout_s, drain_s, workers, transport, api_key_env, ca_file, verify, connections; see
            `acquire.load.worker.spec.LoadSpec`.
        metrics_interval_s: period of reading /metrics.
        cells: warm-up and windows in order.
    """

    session: str
    machine: str
    server: str
    mode: str
    server_settings: Mapping[str, Any]
    power: Mapping[str, Any]
    loaded_idle_s: float
    post_idle_s: float
    settle_s: float
    client: Mapping[str, Any]
    metrics_interval_s: float
    cells: tuple[CellSpec, ...]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "SessionSpec":
        """The spec that `stages.params.StageParams.session` wrote."""
        cells = tuple(
            CellSpec(
                name=cell["name"],
                kind=cell["kind"],
                duration_s=cell["duration_s"],
                workload=cell["workload_name"],
                settings={name: value for name, value in cell["workload"].items() if name in WORKLOAD_SETTINGS},
                arrival=cell["arrival"],
            )
            for cell in content["cells"]
        )
        return cls(**{**content, "cells": cells})

    def planned_s(self) -> list[tuple[str, float]]:
        """The stages with the time each is expected to take, for the estimate of what remains [s]."""
        launch = self.mode == "launch"
        stages = [("launch", 60.0)] if launch else []
        stages.append(("loaded idle", self.settle_s + self.loaded_idle_s))
        stages += [(stage_name(cell), cell.duration_s + min(5.0, self.client["drain_s"])) for cell in self.cells]
        if launch:
            stages += [("stop", 5.0), ("post-run idle", self.settle_s + self.post_idle_s)]
        return stages


def stage_name(cell: CellSpec) -> str:
    """What progress calls a cell."""
    return "warm-up" if cell.kind == "warmup" else f"window {cell.name}"
