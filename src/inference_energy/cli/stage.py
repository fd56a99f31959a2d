"""`stage`: the steps of the pipeline as the workflow's rules call them, one command for each stage of the registry.

A stage's code is imported when it runs, because measuring needs little of the analysis code.
"""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from inference_energy.config.stage_model import read_dump
from inference_energy.errors import InputError
from inference_energy.stages.params import parse
from inference_energy.stages.registry import STAGES, Input, Stage
from inference_energy.stages.run_state import logged


def register(app: typer.Typer) -> None:
    """Add the group `stage`."""
    stages = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="The steps of the pipeline, as the Snakemake rules call them.",
    )
    for stage in STAGES.values():
        panel = "Analysis" if stage.output and stage.output.computed else "Acquisition"
        stages.command(stage.name.replace("_", "-"), help=stage.help, rich_help_panel=panel)(_command(stage))
    app.add_typer(stages, name="stage")


def _command(stage: Stage) -> Callable[..., None]:
    """Return the command of a stage, with options for each input and output, and `--spec` if it reads a model."""

    def command(**options: Any) -> None:
        with logged(options.pop("log")):
            _run(stage, options)

    parameters = list(_parameters(stage))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameters(stage: Stage) -> Iterator[inspect.Parameter]:
    if stage.config is not None:
        yield _option("spec", str, "What the stage depends on, as one JSON object.")
    for read in stage.inputs:
        repeat = "; repeat." if read.each else "."
        kind: Any = list[Path] if read.each else Path
        text = f"{read.file.file_name}{f' of each {read.each}' if read.each else ''}{repeat}"
        yield _option(read.file.name, kind, text, optional=read.optional)
    for name, text in stage.writes.items():
        yield _option(name, Path, text)
    if stage.output is not None:
        yield _option("output", Path, f"{stage.output.file_name} to write.")
    yield _option("log", Path, "File that gets a copy of the messages.", optional=True)


def _option(name: str, kind: Any, text: str, *, optional: bool = False) -> inspect.Parameter:
    option = typer.Option(f"--{name.replace('_', '-')}", help=text)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None if optional else inspect.Parameter.empty,
        annotation=Annotated[kind | None if optional else kind, option],
    )


def _run(stage: Stage, options: dict[str, Any]) -> None:
    config = None if stage.config is None else read_dump(stage.config, parse(options["spec"]), stage.key)
    _check_counts(stage, options)
    inputs = {read.file.name: _content(read, options[read.file.name]) for read in stage.inputs}
    result = stage.run(inputs, config, **{name: options[name] for name in stage.writes})
    if stage.output is not None:
        stage.output.write(options["output"], result)


def _check_counts(stage: Stage, options: dict[str, Any]) -> None:
    """Refuse lists of different lengths if each should have one file per session."""
    names = [read.file.name for read in stage.inputs if read.each == "session" and options[read.file.name]]
    for name in names:
        count = len(options[names[0]])
        if len(options[name]) != count:
            option = name.replace("_", "-")
            raise InputError(f"--{option}: one file for each of the {count} session(s) is expected")


def _content(read: Input, paths: Any) -> Any:
    if not paths:
        return None
    return [read.file.read(path) for path in paths] if read.each else read.file.read(paths)
