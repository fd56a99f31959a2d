"""Parameters of the workflow's rules: the part of the configuration that a stage reads, as one JSON text.

Snakemake reruns a rule when its parameters change, and compares them as a set of values: one JSON text with sorted
keys notices every change, and a key that a stage's model lacks reruns nothing of it. No dates and no paths of this
machine go in.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from inference_energy.config.base import Section
from inference_energy.config.load.workload import LoadPhase
from inference_energy.config.root import Config
from inference_energy.config.servers import AttachSettings, Environment, LaunchServer, LaunchSettings
from inference_energy.config.stage_model import part_of
from inference_energy.contracts.traffic import read_traffic
from inference_energy.errors import InputError
from inference_energy.plan.cells import WARMUP, Cell, plan_files
from inference_energy.plan.stage_configs import (
    AttachedModel,
    EndpointAccess,
    ExperimentConfig,
    ExperimentSettings,
    IdleBaselineConfig,
    MetricsPlan,
    ModelStageConfig,
    PlanConfig,
    ServerEnvironmentConfig,
    SessionConfig,
    SessionNames,
    TrafficProfile,
)
from inference_energy.stages.registry import STAGES, stage_config


class StageParams:
    """What the stages of an experiment read on one machine.

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

    def for_stage(self, name: str, wildcards: Mapping[str, str] | None = None) -> str:
        """Return what a stage reads as JSON text; `wildcards` name the session or the server that it runs for."""
        names = wildcards or {}
        match name:
            case "server_environment":
                return as_text(self.server_environment(names["server"]))
            case "model":
                return as_text(self.model(names["server"]))
            case "prompts" | "schedule":
                return as_text(self.plan(names["session"]))
            case "idle_baseline":
                return as_text(self.idle_baseline(names["server"]))
            case "session":
                return as_text(self.session(names["session"]))
            case "experiment":
                return as_text(ExperimentConfig(plan=self.experiment(), config=self.config.model_dump()))
        config = stage_config(STAGES[name], self.experiment())
        if config is None:
            raise ValueError(f"stage {name} reads nothing of the configuration")
        return as_text(config)

    def server_environment(self, server: str) -> ServerEnvironmentConfig:
        """Return what the stage `server_environment` reads."""
        settings = self.config.servers[server]
        if not isinstance(settings, LaunchServer):
            return ServerEnvironmentConfig(
                server=server, environment="attached", chosen=False, interpreter=None, container=None
            )
        return ServerEnvironmentConfig(
            server=server,
            environment=self._environment(settings),
            chosen=settings.environment == "auto",
            interpreter=settings.interpreter,
            container=settings.container,
        )

    def model(self, server: str) -> ModelStageConfig:
        """Return what the stage `model` reads."""
        settings = self.config.servers[server]
        if not isinstance(settings, LaunchServer):
            return ModelStageConfig(name=settings.model, model=AttachedModel(source="attached"))
        return ModelStageConfig(name=settings.model, model=self.config.models[settings.model])

    def plan(self, session: str) -> PlanConfig:
        """Return what the stages `prompts` and `schedule` read."""
        return PlanConfig(seed=self.config.seed, cells=session_cells(self.config, session))

    def plan_files(self, session: str) -> list[str]:
        """Return the files that prompts, lengths and arrivals of a session come from: inputs of the same stages."""
        return plan_files(session_cells(self.config, session))

    def idle_baseline(self, server: str) -> IdleBaselineConfig:
        """Return what the stage `idle_baseline` reads."""
        settings = self._server(server)
        client = None
        if isinstance(settings, LaunchSettings):
            irrelevant = {"arguments": {}, "variables": {}, "ready_timeout_s": 0.0, "grace_s": 0.0}
            settings = settings.model_copy(update=irrelevant)
        else:
            client = part_of(EndpointAccess, self.config.client)
        return IdleBaselineConfig(
            machine=self.machine,
            server=server,
            mode=self.config.servers[server].mode,
            server_settings=settings,
            power=self.config.power,
            cold_s=self.config.idle.cold_s,
            client=client,
        )

    def session(self, session: str) -> SessionConfig:
        """Return what the stage `session` reads."""
        config, server = self.config, self.config.sessions[session].server
        return SessionConfig(
            session=session,
            machine=self.machine,
            server=server,
            mode=config.servers[server].mode,
            server_settings=self._server(server),
            power=config.power,
            loaded_idle_s=config.idle.loaded_s,
            post_idle_s=config.idle.post_s,
            settle_s=config.idle.settle_s,
            client=config.client,
            metrics_interval_s=config.metrics_interval_s,
            cells=session_cells(config, session),
        )

    def experiment(self) -> ExperimentSettings:
        """Return what the summary is computed from besides raw files."""
        return ExperimentSettings(
            experiment=self.config.experiment,
            analysis=self.config.analysis,
            estimate=self.config.estimate,
            impact=self.config.impact,
            metrics=self._metrics(),
            sessions=[
                SessionNames(machine=machine, session=session, server=self.config.sessions[session].server)
                for machine in self.machines()
                for session in self.config.run
            ],
        )

    def machines(self) -> list[str]:
        """Return the machines whose results are reported."""
        return self.config.machines or [self.machine]

    def _metrics(self) -> MetricsPlan:
        """The section `metrics` with the content of the traffic's profile in place of its path."""
        metrics, traffic, profile = self.config.metrics, self.config.metrics.traffic, None
        if traffic:
            hours = read_traffic(Path(traffic.profile), "metrics.traffic.profile")
            profile = TrafficProfile(replicas=traffic.replicas, unit=hours.unit, hourly=hours.hourly)
        return MetricsPlan(embodied=metrics.embodied, quality=metrics.quality, pareto=metrics.pareto, traffic=profile)

    def _environment(self, settings: LaunchServer) -> Environment:
        """Where vLLM comes from, with `auto` decided."""
        if settings.environment != "auto":
            return settings.environment
        if settings.interpreter:
            return "interpreter"
        if isinstance(settings.gpus, list):  # named GPUs are wanted: the CPU build would not use them
            return "installed"
        return "installed" if self._has_gpu() and self._has_vllm() else "cpu"

    def _server(self, server: str) -> LaunchSettings | AttachSettings:
        settings = self.config.servers[server]
        if not isinstance(settings, LaunchServer):
            return part_of(AttachSettings, settings)
        environment = self._environment(settings)
        wants_gpus = isinstance(settings.gpus, list) or (settings.gpus == "all" and self._has_gpu())
        on_cpu = environment == "cpu" or not wants_gpus
        return LaunchSettings(
            environment=environment,
            back_end="cpu" if on_cpu else "gpu",
            interpreter=settings.interpreter,
            container=settings.container,
            host=settings.host,
            port=settings.port,
            gpus=settings.gpus,
            arguments=settings.arguments | (settings.arguments_on_cpu if on_cpu else settings.arguments_on_gpu),
            variables=settings.variables | (settings.variables_on_cpu if on_cpu else {}),
            ready_timeout_s=settings.ready_timeout_s,
            grace_s=settings.grace_s,
        )


def session_cells(config: Config, session_name: str) -> list[Cell]:
    """Return the cells of a session in the order they run, the warm-up first."""
    session = config.sessions[session_name]
    phases: list[tuple[str, Any, LoadPhase]] = []
    if session.warmup:
        phases.append((WARMUP, WARMUP, session.warmup))
    phases += [(name, config.windows[name].kind, config.windows[name]) for name in session.windows]
    return [
        Cell(
            name=name,
            kind=kind,
            workload_name=phase.workload,
            workload=config.workloads[phase.workload],
            arrival=phase.arrival,
            duration_s=phase.duration_s,
        )
        for name, kind, phase in phases
    ]


def as_text(config: Section) -> str:
    """Return a model as one JSON text, the same for the same content."""
    return json.dumps(config.model_dump(), sort_keys=True, ensure_ascii=False)


def parse(text: str) -> dict[str, Any]:
    """Return the content of a text that `as_text` wrote.

    Raises:
        InputError: not a JSON object.
    """
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"--spec: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError("--spec: a JSON object is expected")
    return content
