"""The stages of the pipeline and the files between them.

Each rule of the workflow runs one stage. This table is what `inference-energy stage`, the rules' parameters, and the
computation of a whole summary in memory (`stages.chain`) are made from. A stage whose inputs are computed ones gets
their content; files of acquisition are passed as paths.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from inference_energy.config.analysis import (
    AttributionConfig,
    EnergyConfig,
    EstimateConfig,
    FitConfig,
    ImpactConfig,
    SteadyLoadConfig,
)
from inference_energy.config.base import Section
from inference_energy.config.stage_model import part_of
from inference_energy.contracts.documents.document import Document, read_document, write_document
from inference_energy.contracts.documents.energy import CarbonDocument, EnergyDocument, FitDocument
from inference_energy.contracts.documents.estimates import EstimatesDocument
from inference_energy.contracts.documents.experiment import ExperimentDocument, MetricsDocument, SummaryDocument
from inference_energy.contracts.documents.windows import LaunchDocument, SteadyLoadDocument, WarmupDocument
from inference_energy.plan.stage_configs import (
    ExperimentConfig,
    ExperimentSettings,
    IdleBaselineConfig,
    MetricsStageConfig,
    ModelStageConfig,
    PlanConfig,
    ServerEnvironmentConfig,
    SessionConfig,
    SummaryConfig,
)

Owner = Literal["machine", "server", "session", "experiment"]
"""Which of them a file or a stage belongs to: there is one of it for each."""


@dataclass(frozen=True)
class File:
    """A kind of file in the results folder.

    Attributes:
        name: name of the option and the argument that takes it.
        path: its path below the results folder, with {machine}, {server}, {session} and {experiment}.
        owner: what there is one of it for.
        computed: whether a stage computes it from other results; its content is passed on, not its path.
        document: type of its content; None for a table, and for a file that is passed as a path.
    """

    name: str
    path: str
    owner: Owner
    computed: bool = False
    document: type[Document] | None = None

    @property
    def file_name(self) -> str:
        """The last part of its path; of a fit, which is named after its server, `fit.json`."""
        return self.path.rpartition("/")[2].replace("{server}", self.name)

    @property
    def code(self) -> tuple[str, ...]:
        """What reads and writes its content, for the digest of a stage that computes from it or computes it."""
        if self == RECEIPTS:
            return ("inference_energy.contracts.io:read_table", "inference_energy.contracts.io:write_table")
        if self.document is None:
            return ("inference_energy.contracts.io:write_json",)
        module = "inference_energy.contracts.documents.document"
        return (f"{module}:read_document", f"{module}:write_document")

    def read(self, path: Path) -> Any:
        """Return what a stage gets of the file at a path."""
        if not self.computed:
            return path
        if self.document is not None:
            return read_document(path, self.document)
        from inference_energy.contracts import receipts
        from inference_energy.contracts.io import read_table

        return read_table(path, receipts.SCHEMA)

    def write(self, path: Path, content: Any) -> None:
        """Write the content that a stage returned."""
        from inference_energy.contracts import receipts
        from inference_energy.contracts.io import write_json, write_table

        if self == RECEIPTS:
            write_table(path, content, receipts.SCHEMA)
        elif isinstance(content, Document):
            write_document(path, content)
        else:
            write_json(path, content)


def _raw_session(name: str, file_name: str) -> File:
    return File(name, f"raw/{{machine}}/sessions/{{session}}/{file_name}", "session")


def _derived(name: str, document: type[Document]) -> File:
    return File(name, f"derived/{{machine}}/{{session}}/{document.FILE}", "session", computed=True, document=document)


SERVER_ENVIRONMENT = File("server_environment", "raw/{machine}/servers/{server}/server_environment.json", "server")
MODEL = File("model", "raw/{machine}/servers/{server}/model.json", "server")
IDLE = File("idle", "raw/{machine}/idle/{server}/idle.json", "server")
IDLE_POWER = File("idle_power", "raw/{machine}/idle/{server}/power.parquet", "server")
PROMPTS = _raw_session("prompts", "prompts.parquet")
SCHEDULE = _raw_session("schedule", "schedule.parquet")
SESSION = _raw_session("session", "session.json")
ENVIRONMENT = _raw_session("environment", "environment.json")
PHASES = _raw_session("phases", "phases.parquet")
REQUESTS = _raw_session("requests", "requests.parquet")
SERVER_METRICS = _raw_session("server_metrics", "server_metrics.parquet")
POWER = _raw_session("power", "power.parquet")
LAUNCH = _derived("launch", LaunchDocument)
WARMUP = _derived("warmup", WarmupDocument)
STEADY_LOAD = _derived("steady_load", SteadyLoadDocument)
ENERGY = _derived("energy", EnergyDocument)
RECEIPTS = File("receipts", "derived/{machine}/{session}/receipts.parquet", "session", computed=True)
CARBON = _derived("carbon", CarbonDocument)
ESTIMATE = _derived("estimate", EstimatesDocument)
FIT = File("fit", "derived/{machine}/fits/{server}.json", "server", computed=True, document=FitDocument)
METRICS = File("metrics", "{experiment}/metrics.json", "experiment", computed=True, document=MetricsDocument)
EXPERIMENT = File(
    "experiment", "{experiment}/experiment.json", "experiment", computed=True, document=ExperimentDocument
)
SUMMARY = File("summary", "{experiment}/summary.json", "experiment", computed=True, document=SummaryDocument)

CALIBRATION = File("calibration", "{experiment}/calibration.json", "experiment")
"""The file that `analysis.calibration` names, under the name that it has in an archive."""

ESTIMATE_CALIBRATION = File("calibration", "{experiment}/estimate_calibration.json", "experiment")
"""The file that `estimate.calibration` names, if it names one, under the name that it has in an archive."""


@dataclass(frozen=True)
class Input:
    """A file that a stage reads.

    Attributes:
        file: which.
        each: the stage gets a list of it, one for each session or each server, in the experiment's order.
        optional: the stage can do without.
    """

    file: File
    each: Literal["session", "server"] | None = None
    optional: bool = False


@dataclass(frozen=True)
class Stage:
    """A step of the pipeline.

    Attributes:
        name: its rule in the workflow; with dashes, its command.
        help: what it does, for `inference-energy stage --help`.
        owner: what it runs once for.
        function: `module:function`. Its arguments have the names of the inputs; besides, it gets `config`, and the path
            of everything in `writes`. It returns the content of the output, or nothing if it writes by itself.
        inputs: files that it reads.
        output: file that it computes; None if it writes by itself.
        config: model that it reads, the argument `config`; None: it depends on its inputs alone.
        key: section of the configuration that the model is from, for messages.
        writes: paths that it gets and writes to by itself, with their help.
        code: `module:function`s that the digest in the rule's parameters starts from, if that is not its function: what
            measures is not to be repeated because a model of the configuration was edited.
    """

    name: str
    help: str
    owner: Owner
    function: str
    inputs: tuple[Input, ...] = ()
    output: File | None = None
    config: type[Section] | None = None
    key: str = ""
    writes: Mapping[str, str] = field(default_factory=dict)
    code: tuple[str, ...] = ()

    @property
    def digest_entries(self) -> tuple[str, ...]:
        """What `provenance.code_digest.digest` takes."""
        read = [entry for one in self.inputs if one.file.computed for entry in one.file.code]
        written = self.output.code if self.output else ()
        return tuple(dict.fromkeys((*(self.code or (self.function,)), *read, *written)))

    def run(self, inputs: Mapping[str, Any], config: Section | None = None, **paths: Path) -> Any:
        """Call the function.

        Args:
            inputs: by the name of the file, what `File.read` gives; a list where the input is one.
            config: an instance of the model.
            paths: those in `writes`.
        """
        module, _, name = self.function.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return function(**inputs, **({} if config is None else {"config": config}), **paths)


def _session_files(*files: File) -> tuple[Input, ...]:
    return tuple(Input(file) for file in files)


def _each(owner: Literal["session", "server"], *files: File) -> tuple[Input, ...]:
    return tuple(Input(file, each=owner) for file in files)


_ACQUISITION = "inference_energy.stages.acquisition"
_RESULTS = "inference_energy.stages.results"

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "environment",
            "Capture the machine: GPUs, CPU, memory, system and versions.",
            "machine",
            f"{_ACQUISITION}:environment",
            writes={"output": "environment.json to write."},
            code=("inference_energy.acquire.machine_environment:write_environment",),
        ),
        Stage(
            "server_environment",
            "Find or make the interpreter that runs vLLM, and list its packages.",
            "server",
            f"{_ACQUISITION}:server_environment",
            output=SERVER_ENVIRONMENT,
            config=ServerEnvironmentConfig,
            key="servers",
            code=("inference_energy.acquire.vllm_environment:prepare_vllm",),
        ),
        Stage(
            "model",
            "Fetch, convert or write the model, and hash its files.",
            "server",
            f"{_ACQUISITION}:model",
            inputs=(Input(SERVER_ENVIRONMENT),),
            output=MODEL,
            config=ModelStageConfig,
            key="models",
            code=("inference_energy.acquire.model_files:prepare_model",),
        ),
        Stage(
            "prompts",
            "Make the prompts of a session.",
            "session",
            f"{_ACQUISITION}:prompts",
            inputs=(Input(MODEL),),
            config=PlanConfig,
            key="plan",
            writes={"output": "prompts.parquet to write."},
        ),
        Stage(
            "schedule",
            "Draw the schedule of a session.",
            "session",
            f"{_ACQUISITION}:schedule",
            inputs=(Input(PROMPTS),),
            config=PlanConfig,
            key="plan",
            writes={"output": "schedule.parquet to write."},
        ),
        Stage(
            "idle_baseline",
            "Log the power of the idle machine, before the server starts.",
            "server",
            f"{_ACQUISITION}:idle_baseline",
            inputs=_session_files(SERVER_ENVIRONMENT, MODEL),
            config=IdleBaselineConfig,
            key="idle",
            writes={
                "power": "power.parquet to write.",
                "facts": "idle.json to write.",
                "logs": "Folder for what is kept if the stage fails.",
            },
            code=("inference_energy.acquire.session.idle:measure_idle",),
        ),
        Stage(
            "session",
            "Launch the server, load it, log its power, and stop it.",
            "session",
            f"{_ACQUISITION}:session",
            inputs=_session_files(SERVER_ENVIRONMENT, MODEL, PROMPTS, SCHEDULE),
            config=SessionConfig,
            key="session",
            writes={
                "output": "Folder to write the raw files to.",
                "logs": "Folder for what is kept if the stage fails.",
            },
            code=("inference_energy.acquire.session.run:run_session",),
        ),
        Stage(
            "launch",
            "Check whether the server came up.",
            "session",
            "inference_energy.analysis.warmup:launch",
            inputs=_session_files(SESSION, PHASES),
            output=LAUNCH,
        ),
        Stage(
            "warmup",
            "Check the warm-up.",
            "session",
            "inference_energy.analysis.warmup:warmup",
            inputs=_session_files(SESSION, PHASES, REQUESTS),
            output=WARMUP,
        ),
        Stage(
            "steady_load",
            "Cut the windows, and check their load, tokens and latencies.",
            "session",
            "inference_energy.analysis.steady_load:steady_load",
            inputs=_session_files(SESSION, PHASES, REQUESTS, SERVER_METRICS, POWER),
            output=STEADY_LOAD,
            config=SteadyLoadConfig,
            key="analysis",
        ),
        Stage(
            "integrate",
            "Compute the energy of every window, and the idle powers.",
            "session",
            f"{_RESULTS}:integrate",
            inputs=(
                *_session_files(SESSION, PHASES, POWER, IDLE, IDLE_POWER, STEADY_LOAD),
                Input(CALIBRATION, optional=True),
            ),
            output=ENERGY,
            config=EnergyConfig,
            key="analysis",
        ),
        Stage(
            "attribute",
            "Attribute the energy of every window to its requests.",
            "session",
            "inference_energy.analysis.attribution:attribute_session",
            inputs=_session_files(REQUESTS, ENERGY),
            output=RECEIPTS,
            config=AttributionConfig,
            key="analysis",
        ),
        Stage(
            "fit",
            "Fit what a token costs on one server.",
            "server",
            f"{_RESULTS}:fit",
            inputs=_each("session", ENERGY, STEADY_LOAD),
            output=FIT,
            config=FitConfig,
            key="analysis",
        ),
        Stage(
            "estimate",
            "Compute every estimator beside the measured windows.",
            "session",
            f"{_RESULTS}:estimate",
            inputs=(
                *_session_files(SESSION, MODEL, ENVIRONMENT, REQUESTS, SERVER_METRICS, STEADY_LOAD, ENERGY),
                Input(ESTIMATE_CALIBRATION, optional=True),
            ),
            output=ESTIMATE,
            config=EstimateConfig,
            key="estimate",
        ),
        Stage(
            "carbon",
            "Compute carbon and water of every window.",
            "session",
            "inference_energy.analysis.footprint:footprint",
            inputs=(Input(ENERGY),),
            output=CARBON,
            config=ImpactConfig,
            key="impact",
        ),
        Stage(
            "metrics",
            "Compute the metric family of an experiment.",
            "experiment",
            f"{_RESULTS}:metrics",
            inputs=(
                *_each("session", STEADY_LOAD, ENERGY, CARBON, RECEIPTS, REQUESTS, PROMPTS, MODEL),
                Input(FIT, each="server"),
            ),
            output=METRICS,
            config=MetricsStageConfig,
            key="metrics",
        ),
        Stage(
            "experiment",
            "Note an experiment's configuration and the version of the code.",
            "experiment",
            "inference_energy.provenance.experiment_json:experiment_record",
            output=EXPERIMENT,
            config=ExperimentConfig,
            key="experiment",
        ),
        Stage(
            "summary",
            "Gather all figures of an experiment.",
            "experiment",
            f"{_RESULTS}:summary",
            inputs=(
                *_each("session", SESSION, LAUNCH, WARMUP, STEADY_LOAD, ENERGY, CARBON),
                Input(FIT, each="server"),
                Input(ESTIMATE, each="session", optional=True),
                Input(METRICS, optional=True),
            ),
            output=SUMMARY,
            config=SummaryConfig,
            key="summary",
        ),
    )
}


def stage_config(stage: Stage, settings: ExperimentSettings) -> Section | None:
    """Return what a stage that computes reads of an experiment's settings; None where these do not have it.

    Raises:
        ValueError: the stage measures: what it reads depends on the machine too.
    """
    sections: dict[str, Section | None] = {
        "analysis": settings.analysis,
        "estimate": settings.estimate,
        "impact": settings.impact,
        "metrics": settings if settings.metrics else None,
        "summary": settings,
    }
    if stage.config is None:
        return None
    if stage.key not in sections:
        raise ValueError(f"stage {stage.name} measures")
    section = sections[stage.key]
    return None if section is None else part_of(stage.config, section)
