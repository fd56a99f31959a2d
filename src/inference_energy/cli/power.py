"""`log-power` and `sources`: log power without a server, and list the power sources of this machine."""

import json
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from inference_energy.acquire.power.choose import all_states, candidates
from inference_energy.acquire.power.power_log import by_reading
from inference_energy.acquire.power.settings import SamplerSpec
from inference_energy.cli.lazy_group import examples
from inference_energy.errors import InputError, RunError, Setting
from inference_energy.present.tables import print_whole

if TYPE_CHECKING:
    from inference_energy.api.power_monitor import PowerMonitor, PowerRecording

LINE_PERIOD_S = 5.0
_OPTIONS = {
    "sources": "--source",
    "period_s": "--interval",
    "log": "--output",
    "gpus": "--gpu",
    "duration_s": "--duration",
}
"""Options of `log-power` that are called otherwise than the argument of `PowerMonitor` which they set."""

_LOG_POWER_EXAMPLES = examples(
    "inference-energy log-power --duration 120 --interval 0.1 --output logs/idle.csv",
    "inference-energy log-power --gpu 0 --output logs/gpu0.parquet",
    "inference-energy log-power --source modelled --tdp-w 65 --idle-w 10 --pid 4711 --output logs/cpu.csv",
)
_SOURCES_EXAMPLES = examples(
    "inference-energy sources",
    "inference-energy sources --json",
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("log-power", epilog=_LOG_POWER_EXAMPLES)(log_power)
    app.command("sources", epilog=_SOURCES_EXAMPLES)(sources)


def log_power(
    *,
    output: Annotated[Path, typer.Option(help="File to write: .csv or .parquet.")],
    duration: Annotated[float | None, typer.Option(help="Duration [s]; by default until Ctrl-C.")] = None,
    interval: Annotated[float, typer.Option(help="Time between samples [s].")] = 0.1,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source", "--power-source", help="Power source, may be repeated; by default the best that works here."
        ),
    ] = None,
    gpu: Annotated[list[str] | None, typer.Option(help="GPU by index or UUID, may be repeated; default all.")] = None,
    tdp_w: Annotated[float | None, typer.Option(help="CPU power at full load [W], for the modelled source.")] = None,
    idle_w: Annotated[
        float, typer.Option(help="CPU power at idle [W]; with 0 only the power above idle counts.")
    ] = 0.0,
    pid: Annotated[
        int | None, typer.Option(help="Process whose tree the modelled source counts; by default the whole machine.")
    ] = None,
) -> None:
    """Log power to a file, and print its energy and mean power, or why they cannot be trusted.

    A CSV has a row a reading. Its first columns are time [unix s] and the sum over all devices at that time: power_W
    [W], gpu_util [percent], mem_used_bytes [B], source and grade (sampled, counter, or modelled where nothing was
    measured). The others are the reading itself: its channel, average and instant power, counter and averaging time.
    """
    if output.suffix not in (".csv", ".parquet"):
        raise InputError(f"--output {output}: the name must end in .csv or .parquet")
    # Imported here, because the analysis takes a second to import, and `sources` does not need it.
    from inference_energy.api.power_monitor import PowerMonitor

    try:
        monitor = PowerMonitor(
            source or "auto",
            interval,
            log=output,
            gpus=gpu or None,
            tdp_w=tdp_w,
            idle_w=idle_w,
            pid=pid,
            duration_s=duration,
        )
        recording = _record(monitor, duration)
    except InputError as error:
        raise InputError(error.notice.spelled(_as_option)) from error
    typer.echo(summary(recording, output))
    if not recording.stats.clean:
        raise RunError(f"{recording.stats.ended_by}; {output} holds what it logged until then")


def sources(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show every power source, and whether it works on this machine."""
    states = all_states(candidates(SamplerSpec()))
    if as_json:
        typer.echo(json.dumps([asdict(state) for state in states], indent=2))
        return
    table = Table("source", "works here", "what it says", "devices")
    for state in states:
        table.add_row(state.name, "yes" if state.available else "no", state.reason, "\n".join(state.devices))
    print_whole(table)


def summary(recording: "PowerRecording", output: Path) -> str:
    """Return energy and mean power, computed and checked as in the pipeline, and the faults, one per line.

    Args:
        recording: readings and the sampler's counts.
        output: the file that was written.
    """
    from inference_energy.present.figures_text import format_figure

    figures, stats = recording.whole(), recording.stats
    energy = figures["energy_total_j"]
    samples = len(by_reading(recording.log)) if output.suffix == ".csv" else recording.log.num_rows
    lines = [f"{output}: {samples} samples"]
    if energy.value is None:
        lines += [f"mean power and energy: not given, {why.code}: {why.detail}" for why in energy.reasons]
    else:
        mean, total = (format_figure(figures[name]) for name in ("power_mean_w", "energy_total_j"))
        lines.append(f"mean power {mean.text} ({', '.join(mean.qualifiers)})")
        over = figures["duration_s"].value or 0.0
        lines.append(f"energy {total.text} over {over:.2f} s ({', '.join(total.qualifiers)})")
        lines += [f"note, {why.code}: {why.detail}" for why in energy.reasons]
    if stats.clean:
        lines.append(f"lost polls {stats.missed}")
    lines += [f"warning: {fault}" for fault in stats.faults]
    return "\n".join(lines)


def _as_option(setting: Setting) -> str:
    """Return the option of `log-power` for an argument of `PowerMonitor`."""
    return _OPTIONS.get(setting.key, f"--{setting.key.replace('_', '-')}")


def _record(monitor: "PowerMonitor", duration_s: float | None) -> "PowerRecording":
    """Run the monitor to its end, or until Ctrl-C or SIGTERM; the readings until then are kept."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        monitor.start()
        try:
            _follow(monitor, duration_s)
        except KeyboardInterrupt:
            typer.echo("stopped early", err=True)
        return monitor.stop(tail_s=0.0)
    finally:
        signal.signal(signal.SIGTERM, before)


def _follow(monitor: "PowerMonitor", duration_s: float | None) -> None:
    console = Console(stderr=True)
    start_s = time.monotonic()
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[w]}"))
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("logging power", total=duration_s, w="")
            while monitor.alive():
                progress.update(task, completed=time.monotonic() - start_s, w=_watts(monitor))
                time.sleep(0.2)
        return
    next_line_s = start_s + 1.5
    while monitor.alive():
        if time.monotonic() >= next_line_s:
            next_line_s += LINE_PERIOD_S
            limit = "" if duration_s is None else f" of {duration_s:g} s"
            typer.echo(f"{time.monotonic() - start_s:.0f} s{limit}: {_watts(monitor)}", err=True)
        time.sleep(0.2)


def _watts(monitor: "PowerMonitor") -> str:
    return ", ".join(f"{domain} {power_w:.1f} W" for domain, power_w in monitor.latest_w().items())
