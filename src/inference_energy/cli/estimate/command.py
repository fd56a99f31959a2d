"""`estimate` as it is typed: side by side without a sub-command; fits, scores and lists with one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inference_energy.errors import InputError

if TYPE_CHECKING:
    from inference_energy.estimate.measured.rows import MeasuredRow

PANEL = "Estimates"
EXAMPLES = """
[bold]Examples[/bold]

inference-energy estimate --model-config Llama-3.1-8B --gpu H100-SXM --batch 64 --input 512 --output 256

inference-energy estimate --model-config path/to/config.json --gpu A100-80-SXM --tp 2 --batch 16 --throughput 900

inference-energy estimate fit sweep.csv --output mine.json

inference-energy estimate --model-config Qwen3-14B --gpu H100-SXM --batch 32 --input 500 --output 500 \\
  --calibration mine.json

inference-energy estimate score
"""
FIT_EXAMPLES = """
[bold]Examples[/bold]

inference-energy estimate rows results/sweep-8b results/sweep-70b --output sweep.json
inference-energy estimate fit sweep.json --output mine.json

inference-energy estimate fit --shipped h100-published --output check.json
"""

estimate = typer.Typer(
    rich_markup_mode="rich",
    invoke_without_command=True,
    help="Energy per token without a run: every published method side by side, modelled, none measured.",
)

ModelConfig = Annotated[
    str | None,
    typer.Option("--model-config", help="config.json, a folder with one, or a name of `estimate models`."),
]
Output = Annotated[Path | None, typer.Option(help="JSON file to write; standard output unless given.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    estimate.callback(epilog=EXAMPLES)(side_by_side)
    estimate.command("fit", epilog=FIT_EXAMPLES)(fit)
    estimate.command("rows")(rows)
    estimate.command("score")(score)
    estimate.command("models")(models)
    estimate.command("gpus")(gpus)
    app.add_typer(estimate, name="estimate", rich_help_panel=PANEL)


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
        str | None, typer.Option(help="Of weights: bf16, fp8, int8 or int4; as the config states unless given.")
    ] = None,
    kv_precision: Annotated[str | None, typer.Option(help="Of the key-value cache; 16 bit unless given.")] = None,
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

    What an estimator needs and is not given is said in its place.
    """
    if context.invoked_subcommand is not None:
        return
    if model_config is None or gpu is None:
        raise InputError(
            "estimate: write --model-config (a config.json or a name of `estimate models`) and --gpu (a name of "
            "`estimate gpus`); `inference-energy estimate --help` has examples"
        )
    import json

    from inference_energy.cli.estimate.show import print_side_by_side
    from inference_energy.estimate.calibration.record import load_calibration
    from inference_energy.estimate.hardware.gpus import gpu_of
    from inference_energy.estimate.shapes.catalogue import shape_of
    from inference_energy.estimate.side_by_side import Request, basis_for
    from inference_energy.estimate.side_by_side import side_by_side as all_estimates

    for name, value, least in (
        ("--batch", batch, 0.0),
        ("--output", output_tokens, 0.0),
        ("--throughput", throughput, 0.0),
    ):
        if value is not None and not value > least:
            raise InputError(f"{name} {value:g}: write a number above 0")
    for name, value in (("--input", input_tokens), ("--ttft", ttft)):
        if value is not None and value < 0:
            raise InputError(f"{name} {value:g}: write 0 or more")
    card = gpu_of(gpu)
    request = Request(
        shape=shape_of(model_config, precision, kv_precision),
        gpu=card,
        tensor_parallel=tp,
        batch=batch,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        throughput=throughput,
        ttft_s=ttft,
    )
    fitted = load_calibration(calibration) if calibration else None
    found = all_estimates(request, basis_for(card, fitted, _baseline(baseline)))
    if as_json:
        typer.echo(json.dumps(found, indent=2, allow_nan=False, ensure_ascii=False))
    else:
        print_side_by_side(found)


def fit(
    table: Annotated[
        Path | None, typer.Argument(help="Measured rows, .csv or .json; docs/estimates.md lists the columns.")
    ] = None,
    output: Output = None,
    name: Annotated[str | None, typer.Option(help="Name of the calibration; the table's unless given.")] = None,
    shipped: Annotated[
        str | None, typer.Option(help="Fit a calibration that is shipped anew: h100-published or h100-windows.")
    ] = None,
) -> None:
    """Fit the energy roofline to a table of measured rows, and write the calibration that --calibration reads."""
    import json

    from inference_energy.cli.estimate.show import print_calibration
    from inference_energy.contracts.tables import write_json
    from inference_energy.estimate.calibration.shipped import fit_shipped, fit_table

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
    """The measured windows of finished runs as a table of rows: what a calibration of your own is fitted to."""
    from inference_energy.contracts.tables import read_json, write_json
    from inference_energy.estimate.measured.runs import rows_of_summaries

    if output.suffix != ".json":
        raise InputError(f"--output {output}: the name must end in .json")
    table = rows_of_summaries([read_json(folder / "summary.json") for folder in experiments])
    write_json(output, table)
    typer.echo(f"{len(table['rows'])} row(s) written: {output}")
    for text in table["left_out"]:
        typer.echo(f"left out: {text}")


def score(
    page: Annotated[Path | None, typer.Option(help="Write the whole page here, in Markdown.")] = None,
    images: Annotated[Path | None, typer.Option(help="Write the plots of docs/estimates.md into this folder.")] = None,
) -> None:
    """How far each estimator is from each published row; what was fitted is scored on models left out of the fit."""
    from inference_energy.cli.estimate.show import print_scores
    from inference_energy.estimate.scorecard.page import page as page_of
    from inference_energy.estimate.scorecard.published import published_scorecard
    from inference_energy.present.estimate_plots import estimate_plots

    found = published_scorecard()
    if page is not None:
        typed = f"inference-energy estimate score --page {page}" + (f" --images {images}" if images else "")
        page.write_text(page_of(found, typed))
    if images is not None:
        for name, text in estimate_plots(found).items():
            (images / name).write_text(text)
    print_scores(found)


def models() -> None:
    """The models whose shapes are shipped."""
    from inference_energy.cli.estimate.show import print_models

    print_models()


def gpus() -> None:
    """The table of GPU data sheets."""
    from inference_energy.cli.estimate.show import print_gpus

    print_gpus()


def _baseline(path: Path | None) -> "MeasuredRow | None":
    """The one row of a table; None without a table."""
    if path is None:
        return None
    from inference_energy.estimate.measured.rows import read_rows

    rows = [row for row in read_rows(path) if row.use == "score" and not row.is_prefill]
    if len(rows) != 1:
        raise InputError(f"--baseline {path}: one row with energy_per_output_token_j is expected, not {len(rows)}")
    return rows[0]
