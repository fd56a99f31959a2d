"""Check of an installation (`make bench`): simulated sessions and one live run, with each figure beside its truth."""

import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from inference_energy.bench.config import Node
from inference_energy.bench.live.cli_wrapper import run_on_bench
from inference_energy.bench.live.node import NodeFolder, open_node
from inference_energy.bench.live.power_trace_file import TraceReader
from inference_energy.bench.live.truth_files import STEPS, read_truth
from inference_energy.bench.truth.power_trace import PowerWithTenants, TruePower
from inference_energy.config.loader import read_merged
from inference_energy.contracts import phases as phases_contract
from inference_energy.contracts.documents.document import read_document
from inference_energy.contracts.documents.experiment import SummaryDocument, SummaryWindow
from inference_energy.contracts.documents.session import IdleDocument
from inference_energy.contracts.io import read_table
from inference_energy.errors import InputError, RunError
from inference_energy.validation.bench_page import outcome_table, scenario_table, verdict
from inference_energy.validation.bench_trial import Trial, TrialOutcome, outcome
from inference_energy.validation.coverage import run_trials, summarize
from inference_energy.validation.scenarios import SCENARIOS

TOLERANCE = 0.01
TABLE_WIDTH = 120
NODE = Node.parse({"sensors": {"rapl": {"present": True}, "nvml": {"gain": 1.0, "offset_w": 0.0}}})
"""A card without gain error: what is left is the pipeline's own."""


def check_installation(config: Path, seeds: Sequence[int], workers: int | None = None) -> bool:
    """Run both, print the tables, and return whether every figure is near its truth.

    Args:
        config: the experiment of the live run; its results belong to the machine `bench`.
        seeds: seeds of the trials of each scenario.
        workers: number of parallel processes.

    Raises:
        InputError: the configuration cannot be used, or there is no Snakefile here.
        RunError: the pipeline failed.
    """
    console = wide_console()
    for needed in (Path("Snakefile"), config):
        if not needed.exists():
            raise InputError(f"{needed} is not here: run this from the folder of the project")
    results = summarize(trials_with_progress(seeds, workers))
    console.print("[bold]live:[/bold] a virtual GPU and server under the real pipeline, about two minutes")
    rows = _live_run(config)
    console.print(scenario_table(f"Offline, simulated: {len(seeds)} sessions of each scenario", results))
    console.print(outcome_table("Live, simulated: one run through the whole pipeline", rows))
    if not any(row.interval for _, row in rows):
        console.print("The pipeline gives no intervals yet, so there is nothing to cover the truth.")
    faults = [*verdict(results), *(f"live, {window}: {fault}" for window, row in rows if (fault := _fault(row)))]
    for sentence in faults:
        console.print(f"[red]wrong:[/red] {sentence}")
    if not faults:
        console.print(f"all {len(rows)} live figures are within {100 * TOLERANCE:g} % of the truth")
    return not faults


def wide_console() -> Console:
    """Return the terminal, or a console wide enough for the tables if there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=TABLE_WIDTH)


def trials_with_progress(seeds: Sequence[int], workers: int | None = None) -> list[Trial]:
    """Run all trials, with a progress bar on a terminal and elsewhere a line for each tenth of them."""
    console, total = Console(stderr=True), len(seeds) * len(SCENARIOS)
    if not console.is_terminal:
        count = itertools.count(1)

        def report(_: Trial) -> None:
            if (done := next(count)) % max(1, total // 10) == 0:
                console.print(f"offline: {done} of {total} simulated sessions")

        return run_trials(seeds, workers=workers, done=report)
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


def _live_run(config: Path) -> list[tuple[str, TrialOutcome]]:
    experiment = read_merged([Path("config.yaml"), config]).experiment
    command = [sys.executable, "-m", "snakemake", "--configfile", str(config), "--quiet", "rules"]
    with tempfile.TemporaryDirectory(prefix="inference-energy-node-") as folder:
        # A node begins once: results of an earlier node are measured again, with everything that follows from them.
        code = run_on_bench(NODE, Path(folder), [*command, "--forcerun", "idle_baseline"])
        if code:
            raise RunError(f"the pipeline ended with exit code {code} on the virtual node; its messages are above")
        return compare_live(open_node(Path(folder)), Path("results/raw"), Path("results") / experiment / "summary.json")


def _fault(row: TrialOutcome) -> str | None:
    if row.measured is None:
        return f"no {row.quantity}: {', '.join(row.reasons)}"
    if row.error is not None and abs(row.error) > TOLERANCE:
        return f"{row.quantity} is off by {100 * row.error:+.2f} %, more than {100 * TOLERANCE:g} %"
    return None


class LiveTruth:
    """Truth of a node that has run: energies and tokens over any span, [start, end) in monotonic ns.

    Args:
        node: folder of the node.
    """

    def __init__(self, node: NodeFolder) -> None:
        self._node = node.node
        reader = TraceReader(node.traces, node.node, node.origin_ns)
        reader.refresh()
        self._host: TruePower = reader.host
        self._gpus = [
            PowerWithTenants(reader.gpu, [t for t in self._node.faults.tenants if t.device == gpu], node.origin_ns)
            for gpu in range(self._node.tensor_parallel)
        ]
        steps = [read_truth(folder, STEPS) for folder in sorted(node.truth.iterdir())]
        written = [table for table in steps if table.num_rows]
        self._steps = {
            name: np.concatenate([table[name].to_numpy() for table in written])
            if written
            else np.zeros(0, dtype=np.int64)
            for name in ("end_ns", "samples", "prompts")
        }

    def energy_j(self, start_ns: int, end_ns: int) -> float:
        """Return the energy within the boundary of the node's sensors: the GPUs, and the host if it has RAPL."""
        times_ns = np.array([start_ns, end_ns], dtype=np.int64)
        total_j = sum(float(np.diff(gpu.energy_j(times_ns))[0]) for gpu in self._gpus)
        if self._node.sensors.rapl.present:
            dram_j = self._node.engine.dram_w * (end_ns - start_ns) / 1e9
            total_j += float(np.diff(self._host.energy_j(times_ns))[0]) + dram_j
        return total_j

    def power_w(self, start_ns: int, end_ns: int) -> float:
        """Return the mean power within the boundary of `energy_j`."""
        return self.energy_j(start_ns, end_ns) / ((end_ns - start_ns) / 1e9)

    def tokens(self, column: str, start_ns: int, end_ns: int) -> int:
        """Return tokens generated (`samples`) or of prompts read (`prompts`), by the ends of their steps."""
        ends_ns = self._steps["end_ns"]
        return int(self._steps[column][(ends_ns >= start_ns) & (ends_ns < end_ns)].sum())


def compare_live(node: NodeFolder, raw_root: Path, summary: Path) -> list[tuple[str, TrialOutcome]]:
    """Return every figure that has a truth, with its window (or `idle`).

    Args:
        node: the node that the experiment ran on.
        raw_root: folder of raw results, for the times of the idle phases.
        summary: the experiment's summary.json.

    Raises:
        RunError: the summary is of other sessions than the node saw.
    """
    truth = LiveTruth(node)
    results = read_document(summary, SummaryDocument)
    rows: list[tuple[str, TrialOutcome]] = []
    for idle in results.idle:
        here = raw_root / idle.machine
        cold = read_document(here / "idle" / idle.server / "idle.json", IdleDocument)
        if cold.start_ns is None or cold.end_ns is None:
            raise RunError(f"{here / 'idle' / idle.server}: holds no cold idle; measure again")
        spans = {"cold": (cold.start_ns, cold.end_ns)}
        frame = read_table(here / "sessions" / idle.session / "phases.parquet", phases_contract.SCHEMA)
        for kind, name in (("loaded", "loaded_idle"), ("post", "post_idle")):
            phase = frame[frame["phase"] == name]
            if len(phase):
                spans[kind] = (int(phase["start_ns"].iloc[0]), int(phase["end_ns"].iloc[0]))
        if spans["cold"][0] < node.origin_ns:
            raise RunError(f"{summary}: measured before this node began; measure again")
        powers = {"cold": idle.cold_power_w, "loaded": idle.loaded_power_w, "post": idle.post_power_w}
        rows += [
            ("idle", outcome(f"{kind} idle power", truth.power_w(*span), powers[kind])) for kind, span in spans.items()
        ]
        cold_w = truth.power_w(*spans["cold"])
        for window in results.cells:
            if window.session == idle.session:
                rows += ((window.window.name, row) for row in _window(window, truth, cold_w))
    return rows


def _window(window: SummaryWindow, truth: LiveTruth, cold_w: float) -> Iterator[TrialOutcome]:
    start_ns, end_ns, figures = window.window.start_ns, window.window.end_ns, window.figures
    total_j = truth.energy_j(start_ns, end_ns)
    active_j = total_j - cold_w * (end_ns - start_ns) / 1e9
    tokens = truth.tokens("samples", start_ns, end_ns)
    yield outcome("energy, total", total_j, figures["energy_total_j"])
    yield outcome("energy, active", active_j, figures["energy_active_j"])
    yield outcome("output tokens", tokens, figures["output_tokens"])
    yield outcome("prompt tokens", truth.tokens("prompts", start_ns, end_ns), figures["prompt_tokens"])
    yield outcome("J/output token, total", total_j / tokens, figures["energy_total_per_output_token_j"])
    yield outcome("J/output token, active", active_j / tokens, figures["energy_active_per_output_token_j"])
