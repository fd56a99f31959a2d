"""`analyze`: energy of a power log and a request log."""

import math
from datetime import tzinfo
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from inference_energy.analysis.csv_log import read_zone
from inference_energy.analysis.footprint import carbon_figures
from inference_energy.analysis.log_energy import analyze_logs
from inference_energy.cli.lazy_group import examples
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts.documents.by_hand import LogAnalysisDocument, LogCarbon
from inference_energy.contracts.documents.document import write_document
from inference_energy.contracts.power import BOUNDARIES
from inference_energy.errors import InputError
from inference_energy.present.tables import print_whole

_ANALYZE_EXAMPLES = examples(
    "inference-energy analyze --power-log logs/active.csv --requests-log logs/requests.csv --output logs/summary.json",
    "inference-energy analyze --power-log logs/active.csv --requests-log logs/r.csv --idle-power 71 --output s.json",
    "inference-energy analyze --power-log p.csv --requests-log r.csv --intensity 344 --pue 1.2 --output summary.json",
)


def register(app: typer.Typer) -> None:
    """Add `analyze`."""
    app.command("analyze", epilog=_ANALYZE_EXAMPLES)(analyze)


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
    boundary: Annotated[
        str | None,
        typer.Option(
            help=f"Parts whose power was logged: {', '.join(BOUNDARIES)}, or several joined by +; by default as "
            "the log says, or else unknown."
        ),
    ] = None,
    sensor_gain: Annotated[
        float | None,
        typer.Option(
            help="Standard uncertainty of the sensor \\[share of the energy], such as 0.0058 for a meter of 1 %; by "
            "default that of a GPU's or CPU's own sensor, and none for another boundary."
        ),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Zone of times that state none: UTC, +02:00, Europe/Berlin.")
    ] = None,
) -> None:
    """Compute energy, per token and per request, from a power log and a request log.

    The window is from the first request sent to the last one ended. The power log must cover it. Power of several
    devices, in rows that a column such as index, uuid or host tells apart or in a column each, is added up.
    """
    if sensor_gain is not None and not 0 <= sensor_gain < 1:
        raise InputError("--sensor-gain: write a share from 0 to below 1")
    if intensity is not None and not 0 <= intensity < math.inf:
        raise InputError("--intensity: write the carbon intensity in gCO2e/kWh, 0 or more")
    if not 1 <= pue < math.inf:
        raise InputError("--pue: write a factor of 1 or more")
    if output.suffix != ".json":
        raise InputError(f"--output {output}: the name must end in .json")
    result = analyze_logs(
        power_log,
        requests_log,
        idle_power,
        AnalysisConfig(),
        stated_boundary=boundary,
        sensor_gain=sensor_gain,
        zone=None if timezone is None else _zone(timezone),
    )
    if intensity is not None:
        result = msgspec.structs.replace(
            result,
            figures={**result.figures, **carbon_figures(result.figures, intensity, pue, ("total", "active"))},
            carbon=LogCarbon(intensity_g_per_kwh=intensity, pue=pue),
        )
    write_document(output, result)
    _print_figures(result)


def _zone(name: str) -> tzinfo:
    try:
        return read_zone(name)
    except InputError as error:
        raise InputError(f"--timezone: {error}") from error


def _print_figures(result: LogAnalysisDocument) -> None:
    """Print the valid figures as a table, then the missing ones by their reasons, then notes."""
    table = Table(box=None)
    table.add_column("figure", no_wrap=True)
    table.add_column("value", no_wrap=True, justify="right")
    table.add_column("95 % interval", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("grade", no_wrap=True)
    missing: dict[str, list[str]] = {}
    notes: dict[str, None] = {}
    for name, figure in result.figures.items():
        reasons = [f"{why.code}: {why.detail}" for why in figure.reasons]
        if figure.value is None:
            missing.setdefault(" ".join(reasons), []).append(name)
            continue
        interval = "{:.5g} to {:.5g}".format(*figure.interval_95) if figure.interval_95 else ""
        table.add_row(name, f"{figure.value:.5g}", interval, figure.unit, figure.grade)
        notes |= dict.fromkeys(reasons)
    typer.echo(f"boundary: {result.boundary}")
    typer.echo(f"uncertainty: {result.uncertainty}")
    print_whole(table)
    for assumption in result.assumptions:
        typer.echo(f"assumed: {assumption}")
    for why, names in missing.items():
        typer.echo(f"not given: {', '.join(names)}. {why}")
    for note in notes:
        typer.echo(f"note, {note}")
