"""Commands of the virtual bench."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inference_energy.cli.lazy_group import examples

if TYPE_CHECKING:
    from inference_energy.bench.config import Node

RUN_EXAMPLES = examples(
    "inference-energy bench run -- snakemake --configfile config/bench.yaml",
    "inference-energy bench run --gpu a100 --folder node -- bash",
)
COVERAGE_EXAMPLES = examples(
    "inference-energy bench coverage --seeds 20",
    "inference-energy bench coverage --seeds 300 --page docs/validation/bench.md",
)
SIMULATE_EXAMPLES = examples(
    "inference-energy bench simulate config.yaml config/llama-8b-shape.yaml --raw results/raw",
)

bench = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="A simulated GPU node with known truth: check the pipeline, or try a plan, without a GPU.",
    epilog=examples("inference-energy bench check", "inference-energy bench calibration"),
)

NodeFile = Annotated[Path | None, typer.Option("--node", help="Node file (JSON): docs/explanation/bench.md.")]
Gpu = Annotated[str | None, typer.Option(help="Kind of GPU: h100, a100 or laptop.")]
Seeds = Annotated[int, typer.Option(min=1, help="Trials of each scenario.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes side by side; one a core unless given.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    bench.command("check")(check)
    bench.command("run", epilog=RUN_EXAMPLES)(run)
    bench.command("simulate", epilog=SIMULATE_EXAMPLES)(simulate)
    bench.command("coverage", epilog=COVERAGE_EXAMPLES)(coverage)
    bench.command("calibration")(calibration)
    app.add_typer(bench, name="bench")


def check(
    config: Annotated[Path, typer.Option(help="The experiment that is run live.")] = Path("config/bench.yaml"),
    seeds: Seeds = 3,
    workers: Workers = None,
) -> None:
    """Check this installation against a known truth: simulated sessions, then a live run through the real pipeline.

    Takes about two and a half minutes and ends with exit code 1 where a figure is missing or off by more than 1 %.
    """
    from inference_energy.validation.make_bench import check_installation

    raise typer.Exit(0 if check_installation(config, range(1, seeds + 1), workers) else 1)


def run(
    command: Annotated[list[str], typer.Argument(help="The command, after --.")],
    node: NodeFile = None,
    gpu: Gpu = None,
    folder: Annotated[
        Path | None, typer.Option(help="Keep the node's folder, with its truth, here; it must be new or empty.")
    ] = None,
) -> None:
    """Run a command on a virtual node: its NVML, RAPL and vLLM are simulated, and every figure is labelled so."""
    import tempfile

    from inference_energy.bench.live.cli_wrapper import run_on_bench

    virtual_node = _node(node, gpu)
    if folder is not None:
        raise typer.Exit(run_on_bench(virtual_node, folder, command))
    with tempfile.TemporaryDirectory(prefix="inference-energy-node-") as temporary:
        raise typer.Exit(run_on_bench(virtual_node, Path(temporary), command))


def simulate(
    configs: Annotated[list[Path], typer.Argument(help="Configuration files; later ones are laid over earlier ones.")],
    raw: Annotated[Path, typer.Option(help="Folder of raw results to write below.")] = Path("results/raw"),
    node: NodeFile = None,
    gpu: Gpu = None,
) -> None:
    """Simulate an experiment hundreds of times faster than it would run, and write its raw files.

    They lie under the machine `bench`; with `machines: [bench]` in a configuration Snakemake analyses them.
    """
    from inference_energy.config.loader import read_merged
    from inference_energy.validation.experiment import simulate_experiment

    for line in simulate_experiment(read_merged(configs), _node(node, gpu), raw):
        typer.echo(line)


def coverage(
    seeds: Seeds = 20,
    workers: Workers = None,
    page: Annotated[Path | None, typer.Option(help="Write the whole page here, in Markdown.")] = None,
) -> None:
    """Bias, spread and coverage of every figure over many simulated sessions (1 to 2 s each on a core)."""
    from inference_energy.validation.bench_page import coverage_table, verdict
    from inference_energy.validation.bench_page import page as page_of
    from inference_energy.validation.calibration import compare
    from inference_energy.validation.coverage import summarize
    from inference_energy.validation.make_bench import trials_with_progress, wide_console

    results = summarize(trials_with_progress(range(1, seeds + 1), workers))
    if page is not None:
        command = f"inference-energy bench coverage --seeds {seeds} --page {page}"
        page.write_text(page_of(results, compare(), command))
    wide_console().print(coverage_table(f"{seeds} seeds, simulated", results.rows))
    faults = verdict(results)
    for sentence in faults:
        typer.echo(sentence)
    raise typer.Exit(1 if faults else 0)


def calibration(
    fit: Annotated[bool, typer.Option("--fit", help="Fit the constants again (about a minute), print them.")] = False,
) -> None:
    """How far the bench's H100 is from published and measured figures."""
    from inference_energy.validation.calibration import FITTED, compare, table
    from inference_energy.validation.calibration import fit as fit_constants

    if not fit:
        typer.echo(table(compare()))
        return
    device, old, new = fit_constants()
    for name in FITTED:
        typer.echo(f"{name}: {getattr(device, name):.4g}")
    for engine, settings in (("vLLM 0.11", old), ("vLLM 0.25", new)):
        typer.echo(f"{engine}: step_host_s {settings.step_host_s:.4g}, sequence_host_s {settings.sequence_host_s:.4g}")
    typer.echo(table(compare(device, old, new)))


def _node(path: Path | None, gpu: str | None) -> "Node":
    """Return the selected node, with a RAPL counter unless a file says otherwise."""
    from inference_energy.bench.config import Node

    node = Node.parse({"sensors": {"rapl": {"present": True}}}) if path is None else Node.read(path)
    return node if gpu is None else node.model_copy(update={"gpu": gpu})
