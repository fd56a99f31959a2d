"""The command's root: its groups, its version, and how errors end it."""

import sys
from typing import Annotated

import typer

from inference_energy import __version__
from inference_energy.cli.lazy_group import SETTINGS, lazy_group
from inference_energy.errors import InputError, RunError


def _power(part: typer.Typer) -> None:
    from inference_energy.cli.power import register

    register(part)


def _load(part: typer.Typer) -> None:
    from inference_energy.cli.load.command import register

    register(part)


def _characterise(part: typer.Typer) -> None:
    from inference_energy.cli.characterize import register

    register(part)


def _calibrate(part: typer.Typer) -> None:
    from inference_energy.cli.characterize import register_calibrate as register

    register(part)


def _analysis(part: typer.Typer) -> None:
    from inference_energy.cli.analysis import register

    register(part)


def _stage(part: typer.Typer) -> None:
    from inference_energy.cli.stage import register

    register(part)


def _experiment(part: typer.Typer) -> None:
    from inference_energy.cli.experiment import register

    register(part)


def _metrics(part: typer.Typer) -> None:
    from inference_energy.cli.metrics import register

    register(part)


def _archive(part: typer.Typer) -> None:
    from inference_energy.cli.archive import register

    register(part)


def _estimate(part: typer.Typer) -> None:
    from inference_energy.cli.estimate import register

    register(part)


def _bench(part: typer.Typer) -> None:
    from inference_energy.cli.bench import register

    register(part)


COMMANDS = {
    "log-power": _power,
    "sources": _power,
    "load-test": _load,
    "characterize": _characterise,
    "calibrate": _calibrate,
    "analyze": _analysis,
    "check": _experiment,
    "document": _experiment,
    "show": _experiment,
    "metrics": _metrics,
    "archive": _archive,
    "verify": _archive,
    "estimate": _estimate,
    "bench": _bench,
    "stage": _stage,
}
"""In the order of the help; a module may add several."""

app = typer.Typer(
    name="inference-energy",
    cls=lazy_group(COMMANDS),
    help="Measured energy of LLM serving.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong use. Documentation: docs/ in the project.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
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
