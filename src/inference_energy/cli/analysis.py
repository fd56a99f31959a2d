"""`analyze` for people, and the stages of the analysis, one command a rule of the workflow."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from inference_energy.analysis import summary as summary_stage
from inference_energy.analysis.attribution import attribute_session
from inference_energy.analysis.energy import energy_of_session
from inference_energy.analysis.figures import figure_from_dict
from inference_energy.analysis.fit.models import fit_server
from inference_energy.analysis.log_energy import analyze_logs
from inference_energy.analysis.steady_load import steady_load as steady_windows
from inference_energy.analysis.warmup import launch as launch_facts
from inference_energy.analysis.warmup import warmup as warmup_facts
from inference_energy.cli.lazy_group import examples
from inference_energy.config.analysis import (
    AnalysisConfig,
    AttributionConfig,
    EnergyConfig,
    EstimateConfig,
    FitConfig,
    ImpactConfig,
    SteadyLoadConfig,
)
from inference_energy.contracts import receipts
from inference_energy.contracts.calibration import read_calibrations
from inference_energy.contracts.documents.document import read_document, write_document
from inference_energy.contracts.documents.energy import CarbonDocument, EnergyDocument, FitDocument
from inference_energy.contracts.documents.estimates import EstimatesDocument
from inference_energy.contracts.documents.experiment import MetricsDocument, PlannedSession
from inference_energy.contracts.documents.session import SessionDocument
from inference_energy.contracts.documents.windows import LaunchDocument, SteadyLoadDocument, WarmupDocument
from inference_energy.contracts.io import read_json, write_json, write_table
from inference_energy.errors import InputError
from inference_energy.estimate.calibration import read_calibration
from inference_energy.estimate.session_estimates import estimate_session
from inference_energy.impact.footprint import carbon_figures, footprint
from inference_energy.plan.workflow_params import parse

_ANALYZE_EXAMPLES = examples(
    "inference-energy analyze --power-log logs/active.csv --requests-log logs/requests.csv --output logs/summary.json",
    "inference-energy analyze --power-log logs/active.csv --requests-log logs/r.csv --idle-power 71 --output s.json",
    "inference-energy analyze --power-log p.csv --requests-log r.csv --intensity 344 --pue 1.2 --output summary.json",
)

Spec = Annotated[str, typer.Option(help="Part of the configuration this depends on, as one JSON object.")]
Output = Annotated[Path, typer.Option(help="File to write.")]
SessionFile = Annotated[Path, typer.Option("--session", help="session.json")]
Phases = Annotated[Path, typer.Option(help="phases.parquet")]
Requests = Annotated[Path, typer.Option(help="requests.parquet")]
Power = Annotated[Path, typer.Option(help="power.parquet")]


def register(app: typer.Typer) -> None:
    """Add `analyze`."""
    app.command("analyze", epilog=_ANALYZE_EXAMPLES)(analyze)


def register_stages(stage: typer.Typer) -> None:
    """Add the stages to the group of commands that the workflow calls."""
    stage.command("launch")(launch)
    stage.command("warmup")(warmup)
    stage.command("steady-load")(steady_load)
    stage.command("integrate")(integrate)
    stage.command("attribute")(attribute)
    stage.command("fit")(fit)
    stage.command("estimate")(estimate)
    stage.command("carbon")(carbon)
    stage.command("summary")(summary)


def analyze(
    *,
    power_log: Annotated[Path, typer.Option(help="Power log, .csv (time, power_W) or .parquet.")],
    requests_log: Annotated[
        Path,
        typer.Option(help="Request log, .csv (timestamp, prompt_tokens, completion_tokens, latency) or .parquet."),
    ],
    output: Annotated[Path, typer.Option(help="JSON file to write.")],
    idle_power: Annotated[
        float | None, typer.Option(help="Idle power to subtract for active energy \\[W]; without it there is none.")
    ] = None,
    intensity: Annotated[float | None, typer.Option(help="Carbon intensity \\[gCO2e/kWh]; adds carbon.")] = None,
    pue: Annotated[float, typer.Option(help="Power usage effectiveness, 1 or more; multiplies carbon.")] = 1.0,
) -> None:
    """Compute energy, per token and per request, from a power log and a request log.

    The window is from the first request sent to the last one ended. The power log must cover it.
    """
    if intensity is not None and intensity < 0:
        raise InputError("--intensity: write the carbon intensity in gCO2e/kWh, 0 or more")
    if pue < 1:
        raise InputError("--pue: write a factor of 1 or more")
    if output.suffix != ".json":
        raise InputError(f"--output {output}: the name must end in .json")
    result = analyze_logs(power_log, requests_log, idle_power, AnalysisConfig())
    if intensity is not None:
        energies = {name: figure_from_dict(figure) for name, figure in result["figures"].items()}
        found = carbon_figures(energies, intensity, pue, ("total", "active"))
        result["figures"] |= {name: figure.as_dict() for name, figure in found.items()}
        result["carbon"] = {"intensity_g_per_kwh": intensity, "pue": pue}
    write_json(output, result)
    _print_figures(result)


def launch(*, session: SessionFile, phases: Phases, output: Output) -> None:
    """Whether the server came up: launch.json."""
    write_document(output, launch_facts(session=session, phases=phases))


def warmup(*, session: SessionFile, phases: Phases, requests: Requests, output: Output) -> None:
    """What the warm-up did: warmup.json."""
    write_document(output, warmup_facts(session=session, phases=phases, requests=requests))


def steady_load(
    *,
    spec: Spec,
    session: SessionFile,
    phases: Phases,
    requests: Requests,
    server_metrics: Annotated[Path, typer.Option(help="server_metrics.parquet")],
    power: Power,
    output: Output,
) -> None:
    """Windows after trimming, their tokens, checks and latencies: steady_load.json."""
    found = steady_windows(
        session=session,
        phases=phases,
        requests=requests,
        server_metrics=server_metrics,
        power=power,
        config=SteadyLoadConfig.from_spec(parse(spec), "analysis"),
    )
    write_document(output, found)


def integrate(
    *,
    spec: Spec,
    session: SessionFile,
    phases: Phases,
    power: Power,
    idle: Annotated[Path, typer.Option(help="idle.json of the server's cold idle")],
    idle_power: Annotated[Path, typer.Option(help="power.parquet of the cold idle")],
    steady_load: Annotated[Path, typer.Option(help="steady_load.json")],
    output: Output,
    calibration: Annotated[Path | None, typer.Option(help="calibration.json to apply")] = None,
) -> None:
    """Energy of every window and the idle powers: energy.json."""
    found = energy_of_session(
        session=session,
        phases=phases,
        power=power,
        idle=idle,
        idle_power=idle_power,
        steady=read_document(steady_load, SteadyLoadDocument),
        config=EnergyConfig.from_spec(parse(spec), "analysis"),
        calibrations=read_calibrations(calibration) if calibration else None,
    )
    write_document(output, found)


def attribute(
    *,
    spec: Spec,
    requests: Requests,
    energy: Annotated[Path, typer.Option(help="energy.json")],
    output: Output,
) -> None:
    """Energy of every request: receipts.parquet."""
    config = AttributionConfig.from_spec(parse(spec), "analysis")
    rows = attribute_session(requests=requests, energy=read_document(energy, EnergyDocument), config=config)
    write_table(output, rows, receipts.SCHEMA)


def fit(
    *,
    spec: Spec,
    energy: Annotated[list[Path], typer.Option(help="energy.json of a session of the server; repeat.")],
    steady_load: Annotated[list[Path], typer.Option(help="steady_load.json of the same sessions; repeat.")],
    output: Output,
) -> None:
    """What a token costs on one server: fit.json."""
    documents = [read_document(path, SteadyLoadDocument) for path in steady_load]
    loads = {(load.machine, load.session): load for load in documents}
    sessions = []
    for document in (read_document(path, EnergyDocument) for path in energy):
        load = loads.get((document.machine, document.session))
        if load is None:
            raise InputError(f"--steady-load: that of session {document.session} is not given")
        sessions.append((document, load))
    config = FitConfig.from_spec(parse(spec), "analysis")
    write_document(output, fit_server(sessions, config.uncertainty))


def estimate(
    *,
    spec: Spec,
    session: SessionFile,
    model: Annotated[Path, typer.Option(help="model.json of the server")],
    environment: Annotated[Path, typer.Option(help="environment.json of the session")],
    requests: Requests,
    server_metrics: Annotated[Path, typer.Option(help="server_metrics.parquet")],
    steady_load: Annotated[Path, typer.Option(help="steady_load.json")],
    energy: Annotated[Path, typer.Option(help="energy.json")],
    output: Output,
) -> None:
    """Every estimator beside what was measured of every steady window: estimates.json."""
    config = EstimateConfig.from_spec(parse(spec), "estimate")
    found = estimate_session(
        session=session,
        model=model,
        environment=environment,
        requests=requests,
        server_metrics=server_metrics,
        steady=read_json(steady_load),
        energy=read_json(energy),
        config=config,
        calibration=read_calibration(config.calibration, "estimate.calibration") if config.calibration else None,
    )
    write_json(output, found)


def carbon(*, spec: Spec, energy: Annotated[Path, typer.Option(help="energy.json")], output: Output) -> None:
    """Carbon and water of every window: carbon.json."""
    config = ImpactConfig.from_spec(parse(spec), "impact")
    write_document(output, footprint(read_document(energy, EnergyDocument), config))


def summary(
    *,
    spec: Spec,
    session: Annotated[list[Path], typer.Option("--session", help="session.json of a session; repeat.")],
    launch: Annotated[list[Path], typer.Option(help="launch.json; repeat.")],
    warmup: Annotated[list[Path], typer.Option(help="warmup.json; repeat.")],
    steady_load: Annotated[list[Path], typer.Option(help="steady_load.json; repeat.")],
    energy: Annotated[list[Path], typer.Option(help="energy.json; repeat.")],
    carbon: Annotated[list[Path], typer.Option(help="carbon.json; repeat.")],
    fit: Annotated[list[Path], typer.Option(help="fit.json of a server; repeat.")],
    output: Output,
    estimate: Annotated[list[Path] | None, typer.Option(help="estimates.json of a session; repeat.")] = None,
    metrics: Annotated[Path | None, typer.Option(help="metrics.json")] = None,
) -> None:
    """Everything of an experiment: summary.json. The spec holds `experiment` and `sessions`, which give the order."""
    plan = parse(spec)
    parts = summary_stage.match_parts(
        session=[read_document(path, SessionDocument) for path in session],
        launch=[read_document(path, LaunchDocument) for path in launch],
        warmup=[read_document(path, WarmupDocument) for path in warmup],
        steady=[read_document(path, SteadyLoadDocument) for path in steady_load],
        energy=[read_document(path, EnergyDocument) for path in energy],
        carbon=[read_document(path, CarbonDocument) for path in carbon],
    )
    ordered = summary_stage.in_order(parts, msgspec.convert(plan["sessions"], list[PlannedSession]))
    fits = [read_document(path, FitDocument) for path in fit]
    estimates = [read_document(path, EstimatesDocument) for path in estimate] if estimate else None
    found = read_document(metrics, MetricsDocument) if metrics else None
    write_document(output, summary_stage.summary(plan["experiment"], ordered, fits, estimates, found))


def _print_figures(result: dict[str, Any]) -> None:
    """The figures that there are as a table, then the others with the reason they share, and what is to be noted."""
    table = Table(box=None)
    table.add_column("figure", no_wrap=True)
    table.add_column("value", no_wrap=True, justify="right")
    table.add_column("95 % interval", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("grade", no_wrap=True)
    absent: dict[str, list[str]] = {}
    notes: dict[str, None] = {}
    for name, content in result["figures"].items():
        figure = figure_from_dict(content)
        said = [f"{why.code}: {why.detail}" for why in figure.reasons]
        if figure.value is None:
            absent.setdefault(" ".join(said), []).append(name)
            continue
        between = "{:.5g} to {:.5g}".format(*figure.interval_95) if figure.interval_95 else ""
        table.add_row(name, f"{figure.value:.5g}", between, figure.unit, figure.grade)
        notes |= dict.fromkeys(said)
    console = Console()
    console.print(f"boundary: {result['boundary']}", markup=False)
    console.print(table)
    for why, names in absent.items():
        console.print(f"not given: {', '.join(names)}. {why}", markup=False)
    for note in notes:
        console.print(f"note, {note}", markup=False)
