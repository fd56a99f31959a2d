"""`make bench`: simulated sessions and one live run, and whether this installation finds the truth in them."""

import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from inference_energy.bench.live.node import open_node
from inference_energy.bench.live.wrapper import run_on_bench
from inference_energy.bench.parts.node import Node
from inference_energy.config.read import read_merged
from inference_energy.errors import InputError, RunError
from inference_energy.validation.coverage import run_trials, summarise
from inference_energy.validation.live import compare_live
from inference_energy.validation.scenarios import SCENARIOS
from inference_energy.validation.tables import outcome_table, scenario_table, verdict
from inference_energy.validation.trial import Outcome, Trial

TOLERANCE = 0.01
TABLE_WIDTH = 120
NODE = Node.parse({"sensors": {"rapl": {"present": True}, "nvml": {"gain": 1.0, "offset_w": 0.0}}})
"""A card without gain error: what is left is the pipeline's own."""


def check_installation(config: Path, seeds: Sequence[int], workers: int | None = None) -> bool:
    """Run both, print the tables, and say whether all is well.

    Args:
        config: the experiment of the live run; its results lie under the machine `bench`.
        seeds: trials of each scenario.
        workers: processes side by side.

    Raises:
        InputError: the configuration cannot be used, or there is no Snakefile here.
        RunError: the pipeline failed.
    """
    console = wide_console()
    for needed in (Path("Snakefile"), config):
        if not needed.exists():
            raise InputError(f"{needed} is not here: run this from the folder of the project")
    found = summarise(trials_with_progress(seeds, workers))
    console.print("[bold]live:[/bold] a virtual GPU and server under the real pipeline, about two minutes")
    rows = _live_run(config)
    console.print(scenario_table(f"Offline, simulated: {len(seeds)} sessions of each scenario", found))
    console.print(outcome_table("Live, simulated: one run through the whole pipeline", rows))
    if not any(row.interval for _, row in rows):
        console.print("The pipeline gives no intervals yet, so there is nothing to cover the truth.")
    wrong = [*verdict(found), *(f"live, {where}: {fault}" for where, row in rows if (fault := _fault(row)))]
    for sentence in wrong:
        console.print(f"[red]wrong:[/red] {sentence}")
    if not wrong:
        console.print(f"all {len(rows)} live figures are within {100 * TOLERANCE:g} % of the truth")
    return not wrong


def wide_console() -> Console:
    """The terminal; where there is none, lines wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=TABLE_WIDTH)


def trials_with_progress(seeds: Sequence[int], workers: int | None = None) -> list[Trial]:
    """All trials, with a progress bar on the terminal and elsewhere a line for each tenth of them."""
    console, total = Console(stderr=True), len(seeds) * len(SCENARIOS)
    if not console.is_terminal:
        count = itertools.count(1)

        def said(_: Trial) -> None:
            if (done := next(count)) % max(1, total // 10) == 0:
                console.print(f"offline: {done} of {total} simulated sessions")

        return run_trials(seeds, workers=workers, done=said)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("offline: simulated sessions", total=total)
        return run_trials(seeds, workers=workers, done=lambda _: bar.advance(task))


def _live_run(config: Path) -> list[tuple[str, Outcome]]:
    experiment = read_merged([Path("config.yaml"), config]).experiment
    command = [sys.executable, "-m", "snakemake", "--configfile", str(config), "--quiet", "rules"]
    with tempfile.TemporaryDirectory(prefix="inference-energy-node-") as folder:
        # A node begins once: what was measured on another is measured anew, and all that follows from it.
        code = run_on_bench(NODE, Path(folder), [*command, "--forcerun", "idle_baseline"])
        if code:
            raise RunError(f"the pipeline ended with exit code {code} on the virtual node; its messages are above")
        return compare_live(open_node(Path(folder)), Path("results/raw"), Path("results") / experiment / "summary.json")


def _fault(row: Outcome) -> str | None:
    if row.measured is None:
        return f"no {row.quantity}: {', '.join(row.reasons)}"
    if row.error is not None and abs(row.error) > TOLERANCE:
        return f"{row.quantity} is off by {100 * row.error:+.2f} %, more than {100 * TOLERANCE:g} %"
    return None
