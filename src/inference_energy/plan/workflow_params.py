"""What each rule is told: the part of the configuration it depends on, and no more, as one JSON text.

Snakemake reruns a rule when its parameters change, and compares them as a set of values: one JSON text with sorted
keys notices every change, and leaving a key out here is what keeps a rule from rerunning. No dates and no paths of
this machine go in.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference_energy.config.analysis import AnalysisConfig
from inference_energy.config.base import Section
from inference_energy.config.load.workload import LoadPhase
from inference_energy.config.root import Config
from inference_energy.config.servers import LaunchServer
from inference_energy.contracts.traffic import read_traffic
from inference_energy.errors import InputError
from inference_energy.plan.cells import WARMUP, Cell, plan_files

Spec = dict[str, Any]


class Specs:
    """The specifications of all rules of an experiment on one machine.

    Args:
        config: the configuration.
        machine: this machine's name.
        has_gpu: whether this machine has an NVIDIA GPU; asked only when something depends on it.
        has_vllm: whether a vLLM is installed on this machine; asked only with a GPU.
    """

    def __init__(self, config: Config, machine: str, has_gpu: Callable[[], bool], has_vllm: Callable[[], bool]) -> None:
        self.config = config
        self.machine = machine
        self._has_gpu = has_gpu
        self._has_vllm = has_vllm

    def server_environment(self, server: str) -> Spec:
        """For the rule `server_environment`."""
        settings = self.config.servers[server]
        if not isinstance(settings, LaunchServer):
            return {"server": server, "environment": "attached"}
        return {
            "server": server,
            "environment": self._environment(settings),
            "chosen": settings.environment == "auto",
            "interpreter": settings.interpreter,
            "container": settings.container,
        }

    def model(self, server: str) -> Spec:
        """For the rule `model`."""
        settings = self.config.servers[server]
        if not isinstance(settings, LaunchServer):
            return {"name": settings.model, "source": "attached"}
        return {"name": settings.model, **self.config.models[settings.model].model_dump()}

    def plan(self, session: str) -> Spec:
        """For the rules `prompts` and `schedule`."""
        return {"seed": self.config.seed, "cells": [cell.as_dict() for cell in session_cells(self.config, session)]}

    def plan_files(self, session: str) -> list[str]:
        """Files that a session's prompts, lengths and arrivals come from: inputs of `prompts` and `schedule`."""
        return plan_files(session_cells(self.config, session))

    def idle(self, server: str) -> Spec:
        """For the rule `idle_baseline`: only what the idle machine can depend on, and the port that must be free."""
        settings = self._server_settings(server)
        if settings["mode"] == "launch":
            settings |= {"arguments": {}, "variables": {}, "ready_timeout_s": 0.0, "grace_s": 0.0}
        asked_as = {"api_key_env", "ca_file", "verify"} if settings["mode"] == "attach" else set()
        return {
            "machine": self.machine,
            "server": server,
            "mode": settings.pop("mode"),
            "server_settings": settings,
            "power": self.config.power.model_dump(),
            "cold_s": self.config.idle.cold_s,
            "client": self.config.client.model_dump(include=asked_as),
        }

    def session(self, session: str) -> Spec:
        """For the rule `session`."""
        config, server = self.config, self.config.sessions[session].server
        settings = self._server_settings(server)
        return {
            "session": session,
            "machine": self.machine,
            "server": server,
            "mode": settings.pop("mode"),
            "server_settings": settings,
            "power": config.power.model_dump(),
            "loaded_idle_s": config.idle.loaded_s,
            "post_idle_s": config.idle.post_s,
            "settle_s": config.idle.settle_s,
            "client": config.client.model_dump(),
            "metrics_interval_s": config.metrics_interval_s,
            "cells": [cell.as_dict() for cell in session_cells(config, session)],
        }

    def analysis(self, model: type[Section] = AnalysisConfig) -> Spec:
        """For the rules of the analysis: those keys of `analysis` that are in the model of the rule's stage."""
        return self.config.analysis.model_dump(include=set(model.model_fields))

    def estimate(self) -> Spec:
        """For the rule `estimate`."""
        return self.config.estimate.model_dump()

    def impact(self) -> Spec:
        """For the rule `carbon`."""
        return self.config.impact.model_dump()

    def metrics(self) -> Spec:
        """For the rule `metrics`: its section, with the content of the traffic's profile in place of its path."""
        content = self.config.metrics.model_dump()
        traffic = self.config.metrics.traffic
        if traffic:
            profile = read_traffic(Path(traffic.profile), "metrics.traffic.profile").as_dict()
            content["traffic"] = {"replicas": traffic.replicas, **profile}
        return content

    def summary(self) -> Spec:
        """For the rule `summary`, and for recomputing it from raw files."""
        return {
            "experiment": self.config.experiment,
            "analysis": self.analysis(),
            "estimate": self.estimate(),
            "impact": self.impact(),
            "metrics": self.metrics(),
            "sessions": [
                {"machine": machine, "session": session, "server": self.config.sessions[session].server}
                for machine in self.machines()
                for session in self.config.run
            ],
        }

    def machines(self) -> list[str]:
        """Machines whose results are reported."""
        return self.config.machines or [self.machine]

    def _environment(self, settings: LaunchServer) -> str:
        """Where vLLM comes from, with `auto` decided."""
        if settings.environment != "auto":
            return settings.environment
        if settings.interpreter:
            return "interpreter"
        if isinstance(settings.gpus, list):  # named GPUs are wanted: the CPU build would not use them
            return "installed"
        return "installed" if self._has_gpu() and self._has_vllm() else "cpu"

    def _server_settings(self, server: str) -> Spec:
        settings = self.config.servers[server]
        if not isinstance(settings, LaunchServer):
            return settings.model_dump()
        environment = self._environment(settings)
        wants_gpus = isinstance(settings.gpus, list) or (settings.gpus == "all" and self._has_gpu())
        on_cpu = environment == "cpu" or not wants_gpus
        content = settings.model_dump(
            exclude={"model", "arguments_on_cpu", "arguments_on_gpu", "variables_on_cpu", "environment"}
        )
        return content | {
            "environment": environment,
            "back_end": "cpu" if on_cpu else "gpu",
            "arguments": settings.arguments | (settings.arguments_on_cpu if on_cpu else settings.arguments_on_gpu),
            "variables": settings.variables | (settings.variables_on_cpu if on_cpu else {}),
        }


def session_cells(config: Config, session_name: str) -> list[Cell]:
    """The cells of a session in the order they run, the warm-up first."""
    session = config.sessions[session_name]
    phases: list[tuple[str, str, LoadPhase]] = []
    if session.warmup:
        phases.append((WARMUP, WARMUP, session.warmup))
    phases += [(name, config.windows[name].kind, config.windows[name]) for name in session.windows]
    return [
        Cell(name, kind, phase.workload, config.workloads[phase.workload], phase.arrival, phase.duration_s)
        for name, kind, phase in phases
    ]


def as_text(spec: Spec) -> str:
    """A specification as one JSON text, the same for the same content."""
    return json.dumps(spec, sort_keys=True, ensure_ascii=False)


def parse(text: str) -> Spec:
    """The specification in a JSON text.

    Raises:
        InputError: not a JSON object.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--spec: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError("--spec: a JSON object is expected")
    return content
