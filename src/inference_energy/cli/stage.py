"""The acquisition steps of the pipeline, one command a rule. Imports are made inside: each step needs few of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import TextIOBase
from pathlib import Path
from typing import Annotated, TextIO

import typer

Spec = Annotated[str, typer.Option("--spec", help="What the step depends on, as one JSON text.")]
ServerEnvironment = Annotated[Path, typer.Option("--server-environment", help="server_environment.json")]
Model = Annotated[Path, typer.Option("--model", help="model.json")]
Envs = Annotated[Path, typer.Option("--envs", help="Folder with the lock files of the vLLM environments.")]
Output = Annotated[Path, typer.Option("--output", help="File to make.")]
Log = Annotated[Path | None, typer.Option("--log", help="File that gets a copy of the messages.")]


def register(app: typer.Typer) -> None:
    """Add the group `stage`."""
    from inference_energy.cli import analysis, metrics

    stages = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="The steps of the pipeline, as the Snakemake rules call them.",
    )
    analysis.register_stages(stages)
    register_acquisition(stages)
    metrics.register_stage(stages)
    app.add_typer(stages, name="stage")


def register_acquisition(app: typer.Typer) -> None:
    """Add the acquisition steps."""
    commands: dict[str, Callable[..., None]] = {
        "environment": environment,
        "server-environment": server_environment,
        "model": model,
        "prompts": prompts,
        "schedule": schedule,
        "idle-baseline": idle_baseline,
        "session": session,
        "experiment": experiment,
    }
    for name, command in commands.items():
        app.command(name, rich_help_panel="Acquisition")(command)


def environment(output: Output) -> None:
    """Capture the machine: GPUs, CPU, memory, system, versions."""
    from inference_energy.acquire.machine_environment import write_environment as write

    write(output)


def server_environment(spec: Spec, envs: Envs, output: Output, log: Log = None) -> None:
    """Find or make the interpreter that runs vLLM, and list its packages."""
    from inference_energy.acquire.vllm_environment import prepare_vllm as prepare
    from inference_energy.contracts.io import write_json
    from inference_energy.plan.workflow_params import parse

    with _logged(log) as say:
        write_json(output, prepare(parse(spec), envs, say))


def model(
    spec: Spec,
    server_environment: ServerEnvironment,
    output: Output,
    log: Log = None,
) -> None:
    """Make the model ready: fetch, convert or write it, and hash its files."""
    from inference_energy.acquire.model_files import prepare_model as prepare
    from inference_energy.contracts.io import read_json, write_json
    from inference_energy.plan.workflow_params import parse

    with _logged(log) as say:
        python = read_json(server_environment)["command"] or []
        write_json(output, prepare(parse(spec), python, say))


def prompts(spec: Spec, model: Model, output: Output) -> None:
    """Make the prompts of a session."""
    from inference_energy.contracts.io import read_json
    from inference_energy.contracts.schedule import PROMPTS
    from inference_energy.plan.cells import Cell, plan_files
    from inference_energy.plan.schedule import prompt_tables
    from inference_energy.plan.tables import digests, write_plan
    from inference_energy.plan.workflow_params import parse

    content = parse(spec)
    cells = [Cell.from_dict(cell) for cell in content["cells"]]
    tables = prompt_tables(cells, content["seed"], read_json(model)["vocabulary"])
    write_plan(output, tables, PROMPTS, digests(plan_files(cells)))


def schedule(
    spec: Spec, prompts: Annotated[Path, typer.Option("--prompts", help="prompts.parquet")], output: Output
) -> None:
    """Draw the schedule of a session."""
    import sys

    from inference_energy.contracts.schedule import SCHEDULE
    from inference_energy.plan.cells import Cell, plan_files
    from inference_energy.plan.schedule import make_schedule, session_requests
    from inference_energy.plan.schedule import schedule_notes as notes_of
    from inference_energy.plan.tables import digests, read_prompts, write_plan
    from inference_energy.plan.workflow_params import parse

    content = parse(spec)
    cells = [Cell.from_dict(cell) for cell in content["cells"]]
    planned = session_requests(cells, content["seed"])
    for note in notes_of(planned):
        print(note, file=sys.stderr)
    write_plan(output, [make_schedule(planned, read_prompts(prompts))], SCHEDULE, digests(plan_files(cells)))


def idle_baseline(
    spec: Spec,
    server_environment: ServerEnvironment,
    model: Model,
    power: Annotated[Path, typer.Option(help="power.parquet to make")],
    facts: Annotated[Path, typer.Option(help="idle.json to make")],
    logs: Annotated[Path, typer.Option(help="Folder for what is kept when the step fails.")],
    log: Log = None,
) -> None:
    """Log the power of the idle machine, before the server starts."""
    from inference_energy.acquire.session.idle import IdleSpec, measure_idle
    from inference_energy.contracts.io import read_json
    from inference_energy.plan.workflow_params import parse

    with _logged(log):
        environment = read_json(server_environment)
        measure_idle(IdleSpec(**parse(spec)), environment, read_json(model), power, facts, logs)


def session(
    spec: Spec,
    server_environment: ServerEnvironment,
    model: Model,
    prompts: Annotated[Path, typer.Option("--prompts", help="prompts.parquet")],
    schedule: Annotated[Path, typer.Option("--schedule", help="schedule.parquet")],
    output: Annotated[Path, typer.Option("--output", help="Folder for the raw files.")],
    logs: Annotated[Path, typer.Option(help="Folder for what is kept when the step fails.")],
    log: Log = None,
) -> None:
    """Launch the server, load it, log its power, stop it."""
    from inference_energy.acquire.session.run import SessionFiles, run_session
    from inference_energy.acquire.session.settings import SessionSpec
    from inference_energy.plan.workflow_params import parse

    with _logged(log):
        files = SessionFiles(server_environment, model, prompts, schedule, output, logs)
        run_session(SessionSpec.from_dict(parse(spec)), files)


def experiment(spec: Spec, output: Output) -> None:
    """Note an experiment's configuration and the code's version."""
    from inference_energy.contracts.io import write_json
    from inference_energy.plan.workflow_params import parse
    from inference_energy.provenance.experiment_json import experiment_record

    write_json(output, experiment_record(parse(spec)))


class _Tee(TextIOBase):
    """Writes to the terminal and to a file."""

    def __init__(self, terminal: TextIO, file: TextIO) -> None:
        self._targets = (terminal, file)

    def write(self, text: str) -> int:
        """Write to both at once, so that a killed step leaves its last words."""
        for target in self._targets:
            target.write(text)
            target.flush()
        return len(text)


@contextmanager
def _logged(log: Path | None) -> Iterator[Callable[[str], None]]:
    """Messages to standard error, and to the log file where one is given; errors are written there too."""
    import sys
    import traceback

    from inference_energy.errors import InputError, RunError

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if log is None:
        yield say
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file, redirect_stderr(_Tee(sys.stderr, file)):
        try:
            yield say
        except (InputError, RunError) as error:
            file.write("\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]) + "\n")
            raise
        except Exception:
            file.write(traceback.format_exc())
            raise
