"""The whole configuration and the checks across its sections."""

import re

from pydantic import Field, model_validator

from inference_energy.config.analysis import AnalysisConfig, EstimateConfig, ImpactConfig, MetricsConfig
from inference_energy.config.base import Section
from inference_energy.config.load.arrivals import ScheduleArrival
from inference_energy.config.load.client import ClientConfig
from inference_energy.config.load.prompts import SyntheticPrompts
from inference_energy.config.load.workload import IdleConfig, LoadPhase, Session, WindowConfig, Workload, phase_problems
from inference_energy.config.power import PowerConfig
from inference_energy.config.servers import LaunchServer, ModelConfig, ServerConfig

NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}"
"""Names become file names and parts of a cell's name, so they hold no dots or slashes."""

RESERVED = {
    "experiment": ("raw", "derived", "logs"),  # folders of results/
    "sessions": ("fits",),  # a folder beside those of sessions
    "windows": ("warmup",),  # the cell of the warm-up
}
"""Names that are taken."""

SHIPPED_INTENSITY = (473, "Ember, Global Electricity Review 2025, world average of 2024")
"""Carbon intensity [g/kWh] of config.yaml and its source, which says nothing about another number."""


class Config(Section):
    """The configuration of an experiment. Definitions are mappings; `run` lists the sessions to run."""

    experiment: str = Field("default", pattern=f"^{NAME}$", description="name of the result folder below results/")
    run: list[str] = Field(min_length=1, description="keys of `sessions` to run")
    machines: list[str] = Field(
        default_factory=list,
        description="machines whose results are reported; empty: this one. Results of others must lie in results/raw/",
    )
    seed: int = Field(20260701, ge=0, description="root of every random draw: prompts, lengths, arrivals")
    sessions: dict[str, Session] = Field(description="server lives: which server, which windows")
    windows: dict[str, WindowConfig] = Field(description="measured stretches of load")
    workloads: dict[str, Workload] = Field(description="what requests ask")
    servers: dict[str, ServerConfig] = Field(description="servers to launch or to attach to")
    models: dict[str, ModelConfig] = Field(default_factory=dict, description="models for launched servers")
    power: PowerConfig = Field(default_factory=PowerConfig, description="power sources")
    idle: IdleConfig = Field(default_factory=IdleConfig, description="idle baselines")
    client: ClientConfig = Field(default_factory=ClientConfig, description="the load client")
    metrics_interval_s: float = Field(1.0, ge=0.1, le=60, description="period of reading the server's /metrics [s]")
    analysis: AnalysisConfig = Field(default_factory=AnalysisConfig, description="windows, integration, attribution")
    estimate: EstimateConfig = Field(default_factory=EstimateConfig, description="estimates beside what is measured")
    impact: ImpactConfig = Field(description="carbon and water")
    metrics: MetricsConfig = Field(default_factory=MetricsConfig, description="the metric family")

    @model_validator(mode="after")
    def _sections_fit_together(self) -> "Config":
        problems = [
            *_bad_names(self),
            *_bad_references(self),
            *_too_short_windows(self),
            *_loads_that_cannot_be(self),
            *_unknown_vocabularies(self),
            *_factors_without_a_source(self),
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _bad_names(config: Config) -> list[str]:
    problems = []
    for section in ("sessions", "windows", "workloads", "servers", "models"):
        names = list(getattr(config, section))
        folded: dict[str, str] = {}
        for name in names:
            if not re.fullmatch(NAME, name):
                problems.append(f"{section}.{name[:40]}: a name has letters, digits, - and _ only, 100 at most")
            elif name in RESERVED.get(section, ()):
                problems.append(f"{section}.{name}: this name is taken by the toolkit; write another one")
            elif (other := folded.setdefault(name.casefold(), name)) != name:
                problems.append(f"{section}.{name}: differs from {other} by case only; some file systems confuse them")
    if config.experiment.casefold() in RESERVED["experiment"]:
        problems.append(f"experiment: results/{config.experiment} has other files; write another name")
    problems += [
        f"machines: {name[:40]!r} is no name of a machine; it has letters, digits, - and _ only"
        for name in config.machines
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", name)
    ]
    lists = {"run": config.run, "machines": config.machines}
    lists |= {f"sessions.{name}.windows": session.windows for name, session in config.sessions.items()}
    problems += [f"{key}: a name stands there twice" for key, names in lists.items() if len(set(names)) != len(names)]
    return problems


def _factors_without_a_source(config: Config) -> list[str]:
    """Refuse a source that speaks of another number: one that was left as it was when the number was changed."""
    carbon, impact = config.impact.carbon, config.impact
    problems = []
    if impact.pue != 1.0 and impact.pue_source == ImpactConfig.model_fields["pue_source"].default:
        problems.append(f"impact.pue_source: the PUE is {impact.pue:g}; write where it comes from, with its year")
    number, source = SHIPPED_INTENSITY
    if carbon.source == source and carbon.intensity_g_per_kwh != number:
        problems.append(
            f"impact.carbon.source: this source gives {number} g/kWh; write where {carbon.intensity_g_per_kwh:g} g/kWh "
            "comes from, with its year"
        )
    return problems


def _bad_references(config: Config) -> list[str]:
    references: list[tuple[str, str, str]] = [("run", name, "sessions") for name in config.run]
    for name, session in config.sessions.items():
        references.append((f"sessions.{name}.server", session.server, "servers"))
        references += [(f"sessions.{name}.windows", window, "windows") for window in session.windows]
        if session.warmup:
            references.append((f"sessions.{name}.warmup.workload", session.warmup.workload, "workloads"))
    references += [(f"windows.{n}.workload", window.workload, "workloads") for n, window in config.windows.items()]
    for name, server in config.servers.items():
        if isinstance(server, LaunchServer):
            references.append((f"servers.{name}.model", server.model, "models"))
    return [
        f"{key}: {name!r} is not defined in `{section}`; defined there: {', '.join(getattr(config, section)) or 'none'}"
        for key, name, section in references
        if name not in getattr(config, section)
    ]


def _too_short_windows(config: Config) -> list[str]:
    """Check the windows that are run; others may be meant for other trims."""
    trims_s = config.analysis.trim_start_s + config.analysis.trim_end_s
    run = {window for name in config.run if name in config.sessions for window in config.sessions[name].windows}
    return [
        f"windows.{name}.duration_s: {window.duration_s:g} s is not longer than analysis.trim_start_s plus "
        f"analysis.trim_end_s ({trims_s:g} s): nothing would be left to measure"
        for name, window in config.windows.items()
        if name in run and window.duration_s <= trims_s
    ]


def _loads_that_cannot_be(config: Config) -> list[str]:
    phases: dict[str, LoadPhase] = {f"windows.{name}": window for name, window in config.windows.items()}
    phases |= {f"sessions.{name}.warmup": s.warmup for name, s in config.sessions.items() if s.warmup}
    return [
        str(problem)
        for key, phase in phases.items()
        if phase.workload in config.workloads
        for problem in phase_problems(key, phase, config.workloads[phase.workload])
    ]


def _unknown_vocabularies(config: Config) -> list[str]:
    """Refuse random token ids for attached servers: their vocabulary is unknown, so the ids might not exist there."""
    problems = set()
    for name in config.run:
        session = config.sessions.get(name)
        server = config.servers.get(session.server) if session else None
        if session is None or server is None or isinstance(server, LaunchServer):
            continue
        phases = [session.warmup, *(config.windows.get(window) for window in session.windows)]
        drawn = [phase for phase in phases if phase and not _replays_prompts(phase)]
        for workload_name in {phase.workload for phase in drawn}:
            workload = config.workloads.get(workload_name)
            prompts = workload.prompts if workload else None
            if isinstance(prompts, SyntheticPrompts) and prompts.form == "token_ids":
                problems.add(
                    f"workloads.{workload_name}.prompts.form: token_ids needs the model's vocabulary, which an "
                    f"attached server (servers.{session.server}) does not tell; write form: words"
                )
    return sorted(problems)


def _replays_prompts(phase: LoadPhase) -> bool:
    return isinstance(phase.arrival, ScheduleArrival) and phase.arrival.prompts is not None
