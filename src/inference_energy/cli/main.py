"""Root of the command line: its commands, its version, and the exit codes of errors."""

import os
import sys
from typing import Annotated

import typer

from inference_energy import __version__
from inference_energy.cli.lazy_group import SETTINGS, LazyCommand, lazy_group
from inference_energy.errors import InputError, RunError

_CLI = "inference_energy.cli"
_BY_HAND, _PIPELINE = "By hand", "Pipeline"

COMMANDS = {
    "log-power": LazyCommand(
        f"{_CLI}.power",
        _BY_HAND,
        "Log power to a file, and print its energy and mean power, or why they cannot be trusted.",
    ),
    "sources": LazyCommand(f"{_CLI}.power", _BY_HAND, "Show every power source, and whether it works on this machine."),
    "load-test": LazyCommand(
        f"{_CLI}.load.command", _BY_HAND, "Load an endpoint, log every request, and report how it did."
    ),
    "characterize": LazyCommand(
        f"{_CLI}.characterize",
        _BY_HAND,
        "Measure update periods, averaging windows, call costs, resolution and idle noise of a GPU's power sensors.",
    ),
    "calibrate": LazyCommand(
        f"{_CLI}.characterize",
        _BY_HAND,
        "Compare the node's own power with an external meter over idle and load, and fit gain and offset of the sum.",
    ),
    "analyze": LazyCommand(
        f"{_CLI}.analysis",
        _BY_HAND,
        "Compute energy, per token and per request, from a power log and a request log.",
    ),
    "check": LazyCommand(
        f"{_CLI}.experiment",
        _PIPELINE,
        "Check a configuration, and whether this machine has what it asks for, before anything starts.",
    ),
    "document": LazyCommand(
        f"{_CLI}.experiment",
        _PIPELINE,
        "Write what is generated from the code: comments in YAML files, JSON schema, reference pages.",
    ),
    "show": LazyCommand(f"{_CLI}.experiment", _PIPELINE, "Print the five lines that sum up a finished experiment."),
    "metrics": LazyCommand(
        f"{_CLI}.metrics",
        _PIPELINE,
        "Print the metric family of a finished experiment: cost of tokens, requests and right answers, by load.",
    ),
    "archive": LazyCommand(
        f"{_CLI}.archive",
        "Archive",
        "Pack an experiment: raw, derived and shown results, configuration, code, with a manifest of SHA-256 sums.",
    ),
    "verify": LazyCommand(
        f"{_CLI}.archive",
        "Archive",
        "Check an archive: every member against the manifest, every figure against the raw files.",
    ),
    "estimate": LazyCommand(
        f"{_CLI}.estimate",
        "Estimates",
        "Energy per token without a run: every published method side by side, modelled, none measured.",
    ),
    "bench": LazyCommand(
        f"{_CLI}.bench",
        "Virtual bench",
        "A simulated GPU node with known truth: check the pipeline, or try a plan, without a GPU.",
    ),
    "stage": LazyCommand(f"{_CLI}.stage", _PIPELINE, "The steps of the pipeline, as the Snakemake rules call them."),
}
"""In the order of the help."""

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


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"inference-energy {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.", metavar="")
    ] = False,
) -> None:
    """Measured energy of LLM serving."""


def main() -> None:
    """Entry point: wrong use ends with 2, a failure with 1, each with one message and no traceback.

    Files and logs of this process and its children are not writable for all, whatever the umask.
    """
    os.umask(os.umask(0o077) | 0o002)
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
