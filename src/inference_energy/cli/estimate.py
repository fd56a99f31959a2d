"""`estimate`: energy without a run, side by side; its sub-commands fit, score and list."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inference_energy.cli.lazy_group import examples
from inference_energy.errors import InputError
from inference_energy.estimate import gpus as data_sheets
from inference_energy.estimate.shapes.config_json import catalogue_models, shape_of
from inference_energy.present.tables import print_whole

if TYPE_CHECKING:
    from inference_energy.estimate.compare import EstimateComparison, PrefillEstimate
    from inference_energy.estimate.scorecard import Score, Scorecard


def print_side_by_side(comparison: "EstimateComparison") -> None:
    """Print all estimates of one configuration: numbers, reasons for missing ones, assumptions and omissions."""
    console = Console()

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, highlight=False, markup=False)

    say(_subject(comparison))
    say("Every figure is modelled: an estimate, not a measurement.", "bold")
    say("")
    available = [row for row in comparison.estimates if not row.unavailable]
    table = Table(box=None, pad_edge=False)
    table.add_column("estimator", no_wrap=True)
    for name in ("J/output token", "range", "J/request"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("contains")
    for row in available:
        request = row.energy_per_request_j
        table.add_row(
            row.id,
            _number(row.energy_per_output_token_j) or "no point",
            _range(row.low, row.high),
            _number(request.point) or _range(request.low, request.high),
            row.boundary,
        )
    if available:
        print_whole(table)
    missing: dict[str, list[str]] = {}
    for row in comparison.estimates:
        if row.unavailable:
            missing.setdefault(row.unavailable, []).append(row.id)
    for why, names in missing.items():
        say(f"unavailable: {', '.join(names)}: {why}.")
    for line in _prefill(comparison.prefill):
        say(line)
    say("")
    for row in available:
        console.print(f"[bold]{row.id}[/bold] assumes: {escape('; '.join(row.assumptions))}.", highlight=False)
        say(f"  leaves out: {'; '.join(row.leaves_out)}.")
    for note in comparison.notes:
        say(f"note: {note}.")


def print_calibration(content: dict[str, Any], path: Path) -> None:
    """Print the coefficients and the prediction errors of a calibration."""
    console = Console()
    for entry in content["coefficients"]:
        console.print(
            f"e_{entry['term']}: {entry['value']:.4g} ± {entry['standard_error']:.2g} {entry['unit']}", highlight=False
        )
    left_out = content["leave_one_model_out_mape"]
    console.print(
        f"{content['rows']} rows, {len(content['models'])} model(s); mean error "
        + f"{100 * content['in_sample_mape']:.1f} % "
        + ("of the rows themselves" if left_out is None else f"in sample, {100 * left_out:.1f} % of models left out"),
        highlight=False,
    )
    for note in content["notes"]:
        console.print(f"note: {note}", highlight=False, markup=False)
    console.print(f"written: {path}", highlight=False, markup=False)


def print_scores(scorecard: "Scorecard") -> None:
    """Print one line per estimator."""
    console = Console()
    for group in scorecard.groups:
        console.print(f"\n{group.title}", style="bold", highlight=False)
        table = Table(box=None, pad_edge=False)
        table.add_column("estimator")
        for name in ("rows", "MAPE", "exp mean |ln|", "within 2x", "median ratio"):
            table.add_column(name, justify="right", no_wrap=True)
        absent: dict[str, list[str]] = {}
        for line in group.scores:
            if line.rows:
                table.add_row(*_score(line))
            else:
                absent.setdefault(line.why or "", []).append(line.label)
        print_whole(table)
        for why, names in absent.items():
            console.print(f"not scored: {', '.join(names)}: {why}.", highlight=False, markup=False)


def print_models() -> None:
    """Print the shipped models."""
    table = Table(box=None, pad_edge=False)
    for name in ("model", "parameters", "active", "weights GB", "KV kB/token", "from"):
        table.add_column(name, justify="left" if name in ("model", "from") else "right", no_wrap=True)
    for name, entry in catalogue_models().items():
        shape = shape_of(name)
        table.add_row(
            name,
            f"{shape.parameters / 1e9:.2f} billion",
            f"{shape.active_parameters / 1e9:.2f} billion" if shape.is_moe else "",
            f"{shape.resident_bytes / 1e9:.4g}",
            f"{shape.kv_bytes_per_token / 1e3:.4g}",
            entry["source"],
        )
    print_whole(table)


def print_gpus() -> None:
    """Print the GPU data sheets as a table."""
    table = Table(box=None, pad_edge=False)
    for name in ("GPU", "TDP W", "memory GB", "GB/s", "bf16", "fp8", "int8", "from"):
        table.add_column(name, justify="left" if name in ("GPU", "from") else "right", no_wrap=name != "from")
    for gpu in data_sheets.gpus().values():
        table.add_row(
            gpu.name,
            f"{gpu.tdp_w:g}",
            f"{gpu.memory_bytes / 1e9:g}",
            f"{gpu.bandwidth_bytes_per_s / 1e9:g}",
            *("" if peak is None else f"{peak / 1e12:g}" for peak in (gpu.bf16_flops, gpu.fp8_flops, gpu.int8_flops)),
            gpu.source,
        )
    console = Console()
    print_whole(table)
    console.print("bf16, fp8, int8: dense peak, TFLOP/s or TOP/s, without sparsity.", highlight=False)


def _subject(comparison: "EstimateComparison") -> str:
    model = comparison.model
    active = f", {model.active_parameters / 1e9:.3g} billion active" if model.experts else ""
    return (
        f"{model.name}: {model.parameters / 1e9:.4g} billion parameters{active}, weights "
        f"{model.weight_bytes / 1e9:.3g} GB; {comparison.load.tensor_parallel} x {comparison.gpu.name}"
    )


def _score(line: "Score") -> tuple[str, ...]:
    return (
        line.label,
        str(line.rows),
        f"{100 * line.mape:.1f} %",
        f"{line.log_error:.2f}",
        f"{100 * line.within_two:.0f} %",
        f"{line.median_ratio:.2f}",
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3g} to {high:.3g}"


def _prefill(prefill: "PrefillEstimate") -> list[str]:
    low, high = prefill.data_sheet_j
    if prefill.unavailable or low is None or high is None:
        return [f"Reading the prompt: unavailable: {prefill.unavailable}"]
    lines = [f"Reading the prompt, apart: {low:.3g} to {high:.3g} J/request by data sheet (40 to 60 % of peak)"]
    if prefill.calibrated_j is not None and prefill.calibrated_interval_j is not None:
        first, last = prefill.calibrated_interval_j
        lines.append(f"  {prefill.calibrated_j:.3g} J/request, {first:.3g} to {last:.3g}, by {prefill.calibration}")
    return lines


EXAMPLES = examples(
    "inference-energy estimate --model-config Llama-3.1-8B --gpu H100-SXM --batch 64 --input 512 --output 256",
    "inference-energy estimate --model-config path/to/config.json --gpu A100-80-SXM --tp 2 --batch 16 --throughput 900",
    "inference-energy estimate fit sweep.csv --output mine.json",
    "inference-energy estimate --model-config Qwen3-14B --gpu H100-SXM --batch 32 --output 500 --calibration mine.json",
    "inference-energy estimate score",
)
FIT_EXAMPLES = examples(
    "inference-energy estimate rows results/sweep-8b results/sweep-70b --output sweep.json",
    "inference-energy estimate fit sweep.json --output mine.json",
    "inference-energy estimate fit --shipped h100-published --output check.json",
)

estimate = typer.Typer(
    rich_markup_mode="rich",
    invoke_without_command=True,
    help="Energy per token without a run: every published method side by side, modelled, none measured.",
)

ModelConfig = Annotated[
    str | None,
    typer.Option("--model-config", help="config.json, a folder with one, or a name of `estimate models`."),
]
Output = Annotated[Path | None, typer.Option(help="JSON file to write; default standard output.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    estimate.callback(epilog=EXAMPLES)(side_by_side)
    estimate.command("fit", epilog=FIT_EXAMPLES)(fit)
    estimate.command("rows")(rows)
    estimate.command("score")(score)
    estimate.command("models")(models)
    estimate.command("gpus")(gpus)
    app.add_typer(estimate, name="estimate")


def side_by_side(
    context: typer.Context,
    *,
    model_config: ModelConfig = None,
    gpu: Annotated[str | None, typer.Option(help="GPU, a name of `estimate gpus`.")] = None,
    batch: Annotated[float | None, typer.Option(help="Mean running batch: requests in a step.")] = None,
    input_tokens: Annotated[float | None, typer.Option("--input", help="Prompt tokens of a request.")] = None,
    output_tokens: Annotated[float | None, typer.Option("--output", help="Output tokens of a request.")] = None,
    throughput: Annotated[
        float | None, typer.Option(help="Measured output tokens/s of all these GPUs together.")
    ] = None,
    ttft: Annotated[float | None, typer.Option(help="Time to first token \\[s].")] = None,
    tp: Annotated[int, typer.Option(min=1, help="GPUs that serve one copy of the model together.")] = 1,
    precision: Annotated[
        str | None, typer.Option(help="Precision of the weights: bf16, fp8, int8 or int4; default that of the config.")
    ] = None,
    kv_precision: Annotated[str | None, typer.Option(help="Precision of the key-value cache; default 16 bit.")] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="Calibration of the energy roofline: a file that `estimate fit` wrote, or a shipped name."),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Table with the one measured row that `scale` starts from.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Energy per token without a run: every published method side by side, modelled, none measured.

    An estimator whose inputs are missing says which.
    """
    if context.invoked_subcommand is not None:
        return
    if model_config is None or gpu is None:
        raise InputError(
            "estimate: write --model-config (a config.json or a name of `estimate models`) and --gpu (a name of "
            "`estimate gpus`); `inference-energy estimate --help` has examples"
        )
    import json

    from inference_energy.api.estimates import estimate_energy
    from inference_energy.contracts.figure import json_values
    from inference_energy.estimate.estimator import as_option

    try:
        estimates = estimate_energy(
            model_config,
            gpu,
            batch=batch,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            throughput=throughput,
            ttft_s=ttft,
            tensor_parallel=tp,
            precision=precision,
            kv_precision=kv_precision,
            calibration=calibration,
            baseline=baseline,
        )
    except InputError as error:
        raise InputError(error.notice.spelled(as_option)) from error
    comparison = estimates.spelled(as_option)
    if as_json:
        typer.echo(json.dumps(json_values(comparison), indent=2, allow_nan=False, ensure_ascii=False))
    else:
        print_side_by_side(comparison)


def fit(
    table: Annotated[
        Path | None, typer.Argument(help="Measured rows, .csv or .json; columns: docs/reference/estimators.md.")
    ] = None,
    output: Output = None,
    name: Annotated[str | None, typer.Option(help="Name of the calibration; default that of the table.")] = None,
    shipped: Annotated[
        str | None, typer.Option(help="Fit a shipped calibration again: h100-published or h100-windows.")
    ] = None,
) -> None:
    """Fit the energy roofline to a table of measured rows, and write the calibration that --calibration reads."""
    import json

    from inference_energy.contracts.io import write_json
    from inference_energy.estimate.calibration_fit import fit_shipped, fit_table

    if (table is None) == (shipped is None):
        raise InputError("estimate fit: give a table of measured rows, or --shipped NAME")
    content = fit_shipped(shipped) if shipped is not None else fit_table(Path(str(table)), name)
    if output is None:
        typer.echo(json.dumps(content, indent=2, allow_nan=False))
        return
    write_json(output, content)
    print_calibration(content, output)


def rows(
    experiments: Annotated[list[Path], typer.Argument(help="Result folders of runs, such as results/default.")],
    output: Annotated[Path, typer.Option(help="JSON table to write, which `estimate fit` reads.")],
) -> None:
    """Write the measured windows of finished runs as a table, which `estimate fit` takes."""
    from inference_energy.contracts.documents.experiment import read_summary
    from inference_energy.contracts.io import write_json
    from inference_energy.estimate.reference_rows import rows_of_summaries

    if output.suffix != ".json":
        raise InputError(f"--output {output}: the name must end in .json")
    table = rows_of_summaries([read_summary(folder) for folder in experiments])
    write_json(output, table)
    typer.echo(f"{len(table['rows'])} row(s) written: {output}")
    for text in table["left_out"]:
        typer.echo(f"left out: {text}")


def score(
    page: Annotated[Path | None, typer.Option(help="Write the whole page here, in Markdown.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder for the plots of the documentation.")] = None,
) -> None:
    """Compare each estimator with each published row; fitted ones are scored on models left out of the fit."""
    from inference_energy.estimate.scorecard import published_scorecard
    from inference_energy.present.doc_pages import estimator_plots, estimators_page

    scorecard = published_scorecard()
    if page is not None:
        command = f"inference-energy estimate score --page {page}" + (f" --images {images}" if images else "")
        page.write_text(estimators_page(scorecard, command))
    if images is not None:
        for name, text in estimator_plots(scorecard).items():
            (images / name).write_text(text)
    print_scores(scorecard)


def models() -> None:
    """List the models whose shapes are shipped."""
    print_models()


def gpus() -> None:
    """List the GPU data sheets."""
    print_gpus()
