"""The configuration read by the stages that measure, and by those of a whole experiment.

Values are decided here: `auto` has become an environment, and arguments for the CPU or the GPU are merged. Stages of
the analysis read parts of `analysis`, `estimate` and `impact` as they are (`config.analysis`).
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from inference_energy.config.analysis import (
    AnalysisConfig,
    EstimateConfig,
    ImpactConfig,
    MetricFamily,
    SensorUncertainty,
)
from inference_energy.config.base import Section
from inference_energy.config.load.client import ClientConfig
from inference_energy.config.power import PowerConfig
from inference_energy.config.servers import AttachSettings, Environment, LaunchSettings, ModelConfig
from inference_energy.plan.cells import Cell

PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
"""A name that becomes part of a path."""


class ServerEnvironmentConfig(Section):
    """Read by `server_environment`: where vLLM comes from; `chosen`: because the configuration says `auto`."""

    server: str
    environment: Environment | Literal["attached"]
    chosen: bool
    interpreter: str | None
    container: list[str] | None


class AttachedModel(Section):
    """The model of a server that is already running; its files are not accessible."""

    source: Literal["attached"]


class ModelStageConfig(Section):
    """Read by `model`: the model's key in the configuration, under which the server lists it, and its section there."""

    name: str | None
    model: ModelConfig | AttachedModel

    def as_dict(self) -> dict[str, Any]:
        """Return name and section in one mapping."""
        return {"name": self.name, **self.model.model_dump()}


class PlanConfig(Section):
    """Read by `prompts` and `schedule`."""

    seed: int
    cells: list[Cell]


class EndpointAccess(Section):
    """The access settings of an attached server; see `ClientConfig`."""

    api_key_env: str | None
    ca_file: str | None
    verify: bool
    max_page_mib: int
    page_timeout_s: float


class ServedConfig(Section):
    """The measured server, its machine, and the power sources."""

    machine: str
    server: str
    mode: Literal["launch", "attach"]
    server_settings: LaunchSettings | AttachSettings
    power: PowerConfig


class IdleBaselineConfig(ServedConfig):
    """Read by `idle_baseline`: only the settings that affect an idle machine, and the port that must be free."""

    cold_s: float
    client: EndpointAccess | None


class SessionConfig(ServedConfig):
    """Read by `session`; `cells` are the warm-up and the windows in order."""

    session: str
    loaded_idle_s: float
    post_idle_s: float
    settle_s: float
    client: ClientConfig
    metrics_interval_s: float
    cells: list[Cell]


class TrafficProfile(Section):
    """A day of traffic: the content of the file that `metrics.traffic.profile` names, not its path."""

    replicas: int
    unit: Literal["requests", "output_tokens"]
    hourly: tuple[float, ...]


class MetricsPlan(MetricFamily):
    """The section `metrics` with the content of the traffic's profile."""

    traffic: TrafficProfile | None = None


class MetricsStageConfig(Section):
    """Read by `metrics`."""

    experiment: str
    metrics: MetricsPlan
    analysis: SensorUncertainty


class SessionNames(Section):
    """A session of an experiment, by names that are also folders."""

    machine: PlainName
    session: PlainName
    server: PlainName


class SummaryConfig(Section):
    """Read by `summary`; the sessions give the order."""

    experiment: str
    sessions: list[SessionNames]


class ExperimentSettings(Section):
    """The settings from which a summary is computed besides raw files: `plan` in experiment.json.

    Experiments of older versions have no `estimate` or `metrics`; their summary has none either.
    """

    experiment: str
    analysis: AnalysisConfig
    estimate: EstimateConfig | None = None
    impact: ImpactConfig
    metrics: MetricsPlan | None = None
    sessions: list[SessionNames] = Field(min_length=1)


class ExperimentConfig(Section):
    """Read by `experiment`: the plan, and the whole configuration for the record."""

    plan: ExperimentSettings
    config: dict[str, Any]
