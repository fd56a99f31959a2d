"""Commands about an experiment's configuration and results, and the pages that are generated from the code."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inference_energy.cli.lazy_group import examples
from inference_energy.config.root import Config
from inference_energy.estimate.calibration import read_calibration
from inference_energy.estimate.gpus import find_gpu
from inference_energy.metrics.pareto import larger_is_better

if TYPE_CHECKING:
    from inference_energy.stages.run_estimate import RunEstimate


def check_names(config: Config) -> None:
    """Look up names that `config` does not know: GPU and calibration of the estimates, figures of Pareto fronts.

    Raises:
        InputError: a name is unknown; the message has its key and what to write.
    """
    if config.estimate.gpu:
        find_gpu(config.estimate.gpu, "estimate.gpu")
    if config.estimate.calibration:
        read_calibration(config.estimate.calibration, "estimate.calibration")
    for pair in config.metrics.pareto:
        for name in pair:
            larger_is_better(name)


CHECK_EXAMPLES = examples(
    "inference-energy check config.yaml",
    "inference-energy check config.yaml config/protocol.yaml",
)

DOCUMENT_EXAMPLES = examples(
    "inference-energy document config.yaml --page docs/reference/configuration.md",
)
SHOW_EXAMPLES = examples("inference-energy show results/default")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("check", epilog=CHECK_EXAMPLES)(check)
    app.command("document", epilog=DOCUMENT_EXAMPLES)(document)
    app.command("show", epilog=SHOW_EXAMPLES)(show)


def check(
    configs: Annotated[list[Path], typer.Argument(help="Configuration files; later ones are laid over earlier ones.")],
    files_only: Annotated[bool, typer.Option("--files-only", help="Check the files and not this machine.")] = False,
) -> None:
    """Check a configuration, and whether this machine has what it asks for, before anything starts."""
    from inference_energy.acquire.session.preflight import check_server
    from inference_energy.acquire.vllm_environment import gpu_count, installed_interpreter
    from inference_energy.config.loader import read_merged
    from inference_energy.plan.tables import machine_name
    from inference_energy.stages.params import StageParams
    from inference_energy.stages.run_estimate import disk_shortage, duration_text, estimate_run

    config = read_merged(configs)
    check_names(config)
    expected = estimate_run(config)
    if files_only:
        typer.echo(f"{config.experiment}: {_how_long(expected)}")
        typer.echo(f"{config.experiment}: nothing wrong was found in the files")
        return
    params = StageParams(config, machine_name(), lambda: gpu_count() > 0, lambda: installed_interpreter() is not None)
    for session in config.run:
        server = config.sessions[session].server
        environment, model = params.server_environment(server), params.model(server)
        verdict = check_server(params.session(session).model_dump(), environment.model_dump(), model.as_dict())
        typer.echo(f"session {session}: {verdict}; about {duration_text(expected.session_s[session])}")
    typer.echo(f"{config.experiment}: {_how_long(expected)}")
    if shortage := disk_shortage(expected, Path.cwd()):
        typer.echo(f"inference-energy: {shortage}", err=True)
    typer.echo(f"{config.experiment}: nothing wrong was found")


def _how_long(expected: "RunEstimate") -> str:
    from inference_energy.stages.run_estimate import duration_text, size_text

    text = (
        f"estimated {duration_text(expected.duration_s)} of measuring and {size_text(expected.data_bytes)} of results "
        "if nothing is cached, without the time to make an environment and fetch a model for a launched server"
    )
    if expected.replayed:
        text += f"; without the requests of {', '.join(expected.replayed)}, whose number is in a file"
    return text


def show(
    experiment: Annotated[Path, typer.Argument(help="Result folder of an experiment, such as results/default.")],
) -> None:
    """Print the five lines that sum up a finished experiment."""
    from inference_energy.contracts.documents.experiment import read_summary
    from inference_energy.present.summary_line import five_lines

    summary = read_summary(experiment)
    typer.echo(five_lines(summary, experiment / "report.html"))


def document(
    configs: Annotated[list[Path], typer.Argument(help="YAML files whose comments are rewritten.")],
    schema: Annotated[Path | None, typer.Option(help="JSON schema to write.")] = None,
    page: Annotated[Path | None, typer.Option(help="Page of all keys to write, in Markdown.")] = None,
    reasons: Annotated[Path | None, typer.Option(help="Page of all reason codes to write, in Markdown.")] = None,
    cli: Annotated[Path | None, typer.Option(help="Page of all commands to write, in Markdown.")] = None,
    files: Annotated[Path | None, typer.Option(help="Page of all files to write, in Markdown.")] = None,
) -> None:
    """Write what is generated from the code: comments in YAML files, JSON schema, reference pages."""
    from inference_energy.config.docgen import json_schema, markdown, recommented
    from inference_energy.present.doc_pages import reasons_page
    from inference_energy.present.files_page import files_page

    for path in configs:
        path.write_text(recommented(path, configs[0], schema))
    if schema:
        schema.write_text(json_schema())
    if page:
        page.write_text(markdown())
    if reasons:
        reasons.write_text(reasons_page())
    if cli:
        from inference_energy.cli.reference import cli_page

        cli.write_text(cli_page())
    if files:
        files.write_text(files_page())
