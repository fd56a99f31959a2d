"""experiment.json, metrics.json and summary.json: the plan of an experiment, its metric family, and its result."""

from pathlib import Path
from typing import Any, ClassVar

from inference_energy.contracts.documents.document import Document, Part, read_document
from inference_energy.contracts.documents.energy import (
    CalibrationRecord,
    DeviceEnergy,
    ExcludedWindow,
    FitDocument,
    ImpactFactors,
)
from inference_energy.contracts.documents.estimates import EstimatesDocument
from inference_energy.contracts.documents.session import LoadClient
from inference_energy.contracts.documents.windows import (
    ClientCost,
    WarmupThroughput,
    WindowChecks,
    WindowCounts,
    WindowLoad,
)
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.errors import InputError


class PlannedSession(Part, frozen=True, kw_only=True):
    """A session of an experiment.

    Attributes:
        machine: name of the machine.
        server: name of the server in the configuration.
        session: name of the session.
    """

    machine: str
    server: str
    session: str


class ExperimentPlan(Part, frozen=True, kw_only=True):
    """What a summary is computed from.

    Attributes:
        analysis: section `analysis` of the configuration.
        estimate: section `estimate` of the configuration.
        experiment: name of the experiment.
        impact: section `impact` of the configuration.
        metrics: section `metrics` of the configuration.
        sessions: its sessions, in the order of the summary.
    """

    analysis: dict[str, Any]
    estimate: dict[str, Any] | None = None
    experiment: str
    impact: dict[str, Any]
    metrics: dict[str, Any]
    sessions: list[PlannedSession]


class ProjectState(Part, frozen=True, kw_only=True):
    """The code that ran an experiment.

    Attributes:
        version: version of the toolkit.
        git_commit: commit of the project's folder; null where git cannot tell.
        git_dirty: whether files differ from that commit.
        missing: reason of each null.
    """

    version: str
    git_commit: str | None
    git_dirty: bool | None
    missing: dict[str, str]


class ExperimentDocument(Document, frozen=True, kw_only=True):
    """What an experiment was.

    Attributes:
        config: the whole configuration.
        plan: what the summary is computed from.
        project: the code that ran it.
    """

    FILE: ClassVar[str] = "experiment.json"

    config: dict[str, Any]
    plan: ExperimentPlan
    project: ProjectState


class MetricWindow(Part, frozen=True, kw_only=True):
    """The metrics of one window.

    Attributes:
        machine: name of the machine.
        cell: name of the window, `<session>.<window>`.
        session: name of the session.
        server: name of the server in the configuration.
        figures: metrics by name.
    """

    machine: str
    cell: str
    session: str
    server: str
    figures: dict[str, Figure]


class LoadLevel(Part, frozen=True, kw_only=True):
    """Power at a share of full load.

    Attributes:
        load_share: share of full load.
        rate: that load, in the unit of the sweep's `rate`.
        power_w: power.
    """

    load_share: float
    rate: float
    power_w: float


class TrafficHour(Part, frozen=True, kw_only=True):
    """Power in an hour of the day of traffic.

    Attributes:
        hour: 0 to 23.
        rate: load of all replicas together [1/s].
        power_w: power of all replicas together.
    """

    hour: int
    rate: float
    power_w: float


class LoadSweep(Part, frozen=True, kw_only=True):
    """Windows of one workload at different rates, on one server.

    Attributes:
        machine: name of the machine.
        server: name of the server in the configuration.
        workload: the workload.
        rate: name of the figure that is load.
        levels: windows in order of their rate.
        left_out: windows that are not part of it.
        idle_w: power of the loaded server without load; null where there is no curve.
        figures: energy proportionality and daily use, by name.
        grid: power at 0, 10, ... 100 % of full load; null where there is no curve.
        hours: power in each hour of the configured day; null where there is none.
    """

    machine: str
    server: str
    workload: str
    rate: str
    levels: list[str]
    left_out: list[ExcludedWindow]
    idle_w: float | None
    figures: dict[str, Figure]
    grid: list[LoadLevel] | None
    hours: list[TrafficHour] | None


class TokenCostModel(Part, frozen=True, kw_only=True):
    """How well one model of a fit knows its coefficients.

    Attributes:
        standard_errors: standard error of each coefficient; null where there is none.
        vif: variance inflation factor of each coefficient; null where there is none.
    """

    standard_errors: dict[str, float | None]
    vif: dict[str, float | None]


class TokenCost(Part, frozen=True, kw_only=True):
    """How well a fit knows what a token costs.

    Attributes:
        machine: name of the machine.
        server: name of the server in the configuration.
        models: each model of the fit by name.
    """

    machine: str
    server: str
    models: dict[str, TokenCostModel]


class WindowName(Part, frozen=True, kw_only=True):
    """A window.

    Attributes:
        machine: name of the machine.
        cell: name of the window, `<session>.<window>`.
    """

    machine: str
    cell: str


class FrontPoint(Part, frozen=True, kw_only=True):
    """A window in the plane of two figures.

    Attributes:
        machine: name of the machine.
        cell: name of the window, `<session>.<window>`.
        values: its two figures.
        dominated_by: windows that are better in both; empty on the front.
    """

    machine: str
    cell: str
    values: list[float | None]
    dominated_by: list[WindowName]


class FrontGroup(Part, frozen=True, kw_only=True):
    """Windows that may be compared.

    Attributes:
        workload: their workload.
        known: basis, boundary and grade of the two figures, in words.
        points: each window.
    """

    workload: str
    known: list[str]
    points: list[FrontPoint]


class FrontExclusion(Part, frozen=True, kw_only=True):
    """A window without one of the two figures.

    Attributes:
        machine: name of the machine.
        cell: name of the window, `<session>.<window>`.
        reasons: why, a sentence each.
    """

    machine: str
    cell: str
    reasons: list[str]


class ParetoFront(Part, frozen=True, kw_only=True):
    """Pareto fronts over two figures.

    Attributes:
        figures: names of the two figures.
        larger_is_better: for each, whether a larger value is better.
        groups: windows that may be compared, with their front.
        left_out: windows without one of the two.
    """

    figures: list[str]
    larger_is_better: list[bool]
    groups: list[FrontGroup]
    left_out: list[FrontExclusion]


class MetricsDocument(Document, frozen=True, kw_only=True):
    """The metric family of an experiment.

    Attributes:
        version: version of the document.
        experiment: name of the experiment.
        cells: metrics of each window.
        sweeps: one a workload, server and machine.
        token_costs: one a fit.
        fronts: one a pair of `metrics.pareto`.
    """

    FILE: ClassVar[str] = "metrics.json"

    version: int
    experiment: str
    cells: list[MetricWindow]
    sweeps: list[LoadSweep]
    token_costs: list[TokenCost]
    fronts: list[ParetoFront]


class ToolkitVersion(Part, frozen=True, kw_only=True):
    """The toolkit that made a summary.

    Attributes:
        version: its version.
    """

    version: str


class TrimmedTimes(Part, frozen=True, kw_only=True):
    """A window after trimming.

    Attributes:
        name: name of the window.
        start_ns: its start.
        end_ns: its end.
    """

    name: str
    start_ns: int
    end_ns: int


class SummaryWindow(Part, frozen=True, kw_only=True):
    """A window in a summary.

    Attributes:
        cell: name of the window, `<session>.<window>`.
        machine: name of the machine.
        session: name of the session.
        window: its name and times after trimming.
        server: name of the server in the configuration.
        model: name of the served model.
        kind: `steady`, `prefill` or `decode`.
        load: the load that was asked for.
        figures: all figures of energy.json, steady_load.json and carbon.json.
        devices: every power channel, as in energy.json.
        counts: what fell into it, as in steady_load.json.
        checks: results of its checks, as in steady_load.json.
        client: what the load client took; null where it was not recorded.
    """

    cell: str
    machine: str
    session: str
    window: TrimmedTimes
    server: str
    model: str | None
    kind: str
    load: WindowLoad
    figures: dict[str, Figure]
    devices: list[DeviceEnergy]
    counts: WindowCounts
    checks: WindowChecks
    client: ClientCost | None


class SummaryIdle(Part, frozen=True, kw_only=True):
    """Idle powers of a session.

    Attributes:
        machine: name of the machine.
        session: name of the session.
        server: name of the server in the configuration.
        cold_power_w: before the server started.
        loaded_power_w: with the server up and no request.
        post_power_w: after the server had stopped.
    """

    machine: str
    session: str
    server: str
    cold_power_w: Figure
    loaded_power_w: Figure
    post_power_w: Figure


class SummaryLaunch(Part, frozen=True, kw_only=True):
    """The launch of a session's server, as in launch.json.

    Attributes:
        ok: whether it became ready; true for an attached server.
        mode: `launch` or `attach`.
        ready_after_s: time until the server answered.
        server_version: version that the server states.
        reasons: what is wrong with the launch, or worth knowing.
    """

    ok: bool
    mode: str
    ready_after_s: float | None
    server_version: str | None
    reasons: list[Reason]


class SummaryWarmup(Part, frozen=True, kw_only=True):
    """The warm-up of a session, as in warmup.json.

    Attributes:
        requests: requests of the warm-up.
        failed: requests that failed.
        throughput: token rate over the warm-up.
        reasons: what is wrong with the warm-up.
    """

    requests: int
    failed: int
    throughput: WarmupThroughput
    reasons: list[Reason]


class SummarySession(Part, frozen=True, kw_only=True):
    """A session in a summary.

    Attributes:
        machine: name of the machine.
        session: name of the session.
        server: name of the server in the configuration.
        launch: the launch of its server.
        warmup: its warm-up.
        client: what the load client took, as in session.json.
        calibration: calibration of its power, as in energy.json.
        session_sha256: SHA-256 of session.json, which holds those of the other raw files; absent where it does not.
    """

    machine: str
    session: str
    server: str
    launch: SummaryLaunch
    warmup: SummaryWarmup
    client: LoadClient | None
    calibration: CalibrationRecord | None
    session_sha256: str | None = None


class SummaryDocument(Document, frozen=True, kw_only=True):
    """The result of an experiment.

    Attributes:
        version: version of the document.
        experiment: name of the experiment.
        machines: machines that measured.
        toolkit: the toolkit that made it.
        factors: carbon, PUE and water factors; null without sessions.
        cells: every window.
        idle: idle powers of each session.
        sessions: each session.
        fits: one a server and machine, as in fits/<server>.json.
        estimates: estimates.json of each session; absent where the experiment has none.
        notes: sentences that hold for whole sessions or servers.
        metrics: content of metrics.json; absent where it was not computed.
    """

    FILE: ClassVar[str] = "summary.json"

    version: int
    experiment: str
    machines: list[str]
    toolkit: ToolkitVersion
    factors: ImpactFactors | None
    cells: list[SummaryWindow]
    idle: list[SummaryIdle]
    sessions: list[SummarySession]
    fits: list[FitDocument]
    estimates: list[EstimatesDocument] | None = None
    notes: list[str]
    metrics: MetricsDocument | None = None


def read_summary(experiment: Path) -> SummaryDocument:
    """Read summary.json of a finished experiment.

    Args:
        experiment: its folder, such as results/default.

    Raises:
        InputError: it is no such folder, the experiment has not ended, or the file is damaged.
    """
    file = experiment / SummaryDocument.FILE
    if experiment.is_file() and experiment.suffix == ".zip":
        raise InputError(
            f"{experiment}: an archive: `inference-energy verify {experiment}` checks it; to use its results, unpack "
            "it and name its folder results/<experiment>"
        )
    if experiment.is_file():
        raise InputError(f"{experiment}: a file: name the result folder of an experiment, such as results/default")
    if not experiment.is_dir():
        raise InputError(
            f"{experiment}: no such folder: name the result folder of an experiment, such as results/default"
        )
    if (experiment / ExperimentDocument.FILE).is_file() and not file.is_file():
        raise InputError(f"{file}: no such file: the experiment has not ended; `snakemake` goes on with it")
    if not file.is_file():
        raise InputError(f"{file}: no such file: name the result folder of an experiment, which `snakemake` fills")
    return read_document(file, SummaryDocument)
