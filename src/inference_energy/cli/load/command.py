"""`load-test` as it is typed, with a signature made of the table of options, and what it prints."""

import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from pydantic_core import PydanticUndefined

from inference_energy.api.load_test.settings import LoadPlan, LoadTest
from inference_energy.cli.load.options import OPTIONS, RESULTS, Option, model_field, spell
from inference_energy.contracts.documents.by_hand import LoadTestDocument
from inference_energy.contracts.figure import json_values
from inference_energy.contracts.io import ensure_writable, write_json
from inference_energy.errors import InputError, RunError

if TYPE_CHECKING:
    from rich.console import RenderableType

EXAMPLES = """
[bold]Examples[/bold]

Eight users, each with one request in flight, with prompts from a file:
  inference-energy load-test --endpoint http://localhost:8000 --model M \\
    --prompts prompts.txt --duration 600 --concurrency 8 \\
    --output logs/requests.csv

64 requests/s, Poisson, synthetic prompts, 128 tokens each, goodput:
  inference-energy load-test --endpoint http://localhost:8000 --model M \\
    --prompt-length normal:256:64 --max-tokens 128 --ignore-eos --qps 64 \\
    --limits ttft=0.5,tpot=0.05 --duration 120 --output requests.parquet

Bursts; a ramp; a trace at twice its rate; a conversation:
  ... --qps 64 --arrival gamma --burstiness 0.5
  ... --arrival ramp --qps 1:64
  ... --trace conv.csv --time-scale 0.5 --ignore-eos
  ... --prompts sharegpt.json --turns uniform:2:6 --turn-think lognormal:8:6 \\
    --api chat --qps 2

The same requests again:
  ... --qps 64 --save-schedule mine.parquet
  ... --schedule mine.parquet
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("load-test", epilog=EXAMPLES, rich_help_panel="By hand")(load_test)


def load_test(**typed: Any) -> None:
    """Load an endpoint, log every request, and report how it did.

    Without --qps and --arrival it is a closed loop: each user sends the next request when the last has ended. Every
    random draw is made beforehand. Tokens are the server's own count, compared with its /metrics. Details:
    docs/reference/load.md.
    """
    from rich.console import Console

    from inference_energy.api.load_test.run import plan_load, run_load
    from inference_energy.cli.load.document import load_test as parse
    from inference_energy.cli.load.progress_view import LoadDisplay

    json_file = typed.pop("json_file")
    test = parse(typed)
    if json_file not in (None, "-"):
        ensure_writable(Path(json_file))
    spelled = spell(test.arrival.process)
    display = LoadDisplay(Console(stderr=True), test, spelled)
    try:
        result = plan_load(test, display) if test.plan_only else run_load(test, display)
    except InputError as error:
        raise InputError(error.notice.spelled(spelled)) from error
    if isinstance(result, LoadPlan):
        show_plan(test, result, display.notes, json_file)
    else:
        result = msgspec.structs.replace(result, notes=display.notes)
        show(result, json_file)
        check_outcome(result)


def show_plan(test: LoadTest, plan: LoadPlan, notes: list[str], json_file: str | None) -> None:
    """Print what a plan holds, and write it as JSON if asked for."""
    from inference_energy.present.load_summary import plan_summary

    _write({**json_values(plan), "notes": notes}, json_file)
    files = dict(zip(("schedule", "prompts"), map(str, test.saved or ()), strict=True))
    _print(plan_summary(plan.plan, files), json_file)


def show(summary: LoadTestDocument, json_file: str | None) -> None:
    """Print the tables of a summary, and write it as JSON if asked for."""
    # Imported here, because nothing is measured any more.
    from inference_energy.present.load_summary import load_summary

    _write(json_values(summary), json_file)
    _print(load_summary(summary), json_file)


def _write(content: dict[str, Any], json_file: str | None) -> None:
    if json_file == "-":
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    elif json_file is not None:
        write_json(Path(json_file), content)


def _print(tables: "RenderableType", json_file: str | None) -> None:
    """Print on standard output, or on standard error if the JSON goes to standard output."""
    from rich.console import Console

    Console(stderr=json_file == "-").print(tables)


def check_outcome(summary: LoadTestDocument) -> None:
    """Raise a RunError if the load broke off, or if every request failed."""
    counts = summary.requests
    if summary.failure:
        raise RunError(f"the load broke off: {summary.failure}")
    if counts.failed and not counts.ok:
        first = summary.errors[0].error
        raise RunError(f"all {counts.failed + counts.aborted} requests failed; most of them: {first}")


def _parameter(option: Option) -> inspect.Parameter:
    key = model_field(option.key)
    bounds = {type(bound).__name__: bound for bound in key.metadata}
    numeric = option.value_type in (int, float)
    info = typer.Option(
        option.flag,
        *option.also,
        help=_help(option),
        metavar=option.metavar,
        rich_help_panel=option.panel,
        min=bounds["Ge"].ge if numeric and "Ge" in bounds else None,
        max=bounds["Le"].le if numeric and "Le" in bounds else None,
    )
    required = option.panel is None and key.is_required()
    default: Any = inspect.Parameter.empty if required else (False if option.is_flag else None)
    value_type: Any = bool if option.is_flag else option.value_type
    annotation: Any = Annotated[value_type if required or option.is_flag else value_type | None, info]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _help(option: Option) -> str:
    """Return the option's help, or its key's description with what null means as the default."""
    key = model_field(option.key)
    description, _, null = (key.description or "").partition("; null: ")
    # A description that begins with a value, such as `auto: ...`, keeps its small letter.
    starts_with_value = description.partition(" ")[0].endswith(":")
    text = option.help or (description if starts_with_value else description[0].upper() + description[1:]) + "."
    default = option.shown_default or option.default
    if default is None and not option.is_flag:
        default = null or (key.default if isinstance(key.default, int | float | str) else None)
    if isinstance(default, float):
        default = f"{default:g}"
    shown = "" if default in (None, "", PydanticUndefined) else f" [default: {default}]"
    return (text + shown).replace("[", "\\[")


JSON_FILE = inspect.Parameter(
    "json_file",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        typer.Option("--json", rich_help_panel=RESULTS, help="Write the summary as JSON; - is stdout.", metavar="FILE"),
    ],
)
load_test.__signature__ = inspect.Signature([*map(_parameter, OPTIONS), JSON_FILE])  # type: ignore[attr-defined]
load_test.__annotations__ = {}
