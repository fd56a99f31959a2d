"""The command's root: its groups, its version, and how errors end it."""

import sys
from typing import Annotated

import typer

from inference_energy import __version__
from inference_energy.cli import analysis, archive, bench, calibrate, characterise, experiment, load, power, stage
from inference_energy.errors import InputError, RunError

app = typer.Typer(
    name="inference-energy",
    help="Measured energy of LLM serving.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong use. Documentation: docs/ in the project.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
stages = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="The steps of the pipeline, as the Snakemake rules call them.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"inference-energy {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Measured energy of LLM serving."""


power.register(app)
load.register(app)
characterise.register(app)
calibrate.register(app)
analysis.register(app, stages)
experiment.register(app)
archive.register(app)
bench.register(app)
stage.register(stages)
app.add_typer(stages, name="stage", rich_help_panel="Pipeline")


def main() -> None:
    """Entry point: the user's mistakes end with 2, failures with 1, each with one message and no traceback."""
    try:
        app()
    except InputError as error:
        _end(error, 2)
    except RunError as error:
        _end(error, 1)


def _end(error: Exception, code: int) -> None:
    notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
    print(f"inference-energy: {error}{notes}", file=sys.stderr, flush=True)
    sys.exit(code)
