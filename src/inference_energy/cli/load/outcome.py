"""What `load-test` prints and writes at the end, and how it ends."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from inference_energy.cli.load.options import LoadOptions
from inference_energy.errors import RunError
from inference_energy.present.load_summary import load_summary, plan_summary


def show(options: LoadOptions, found: dict[str, Any], json_file: str | None) -> None:
    """The tables on standard output, or on standard error where the JSON goes there."""
    if json_file == "-":
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    elif json_file is not None:
        _write(Path(json_file), found)
    console = Console(stderr=json_file == "-")
    if options.plan_only:
        files = dict(zip(("schedule", "prompts"), map(str, options.saved or ()), strict=True))
        console.print(plan_summary(found, files))
    else:
        console.print(load_summary(found))


def end(summary: dict[str, Any]) -> None:
    """The exit code: a load that broke off, and one of which every request failed, is a failure.

    Raises:
        RunError: it is one.
    """
    counts = summary["requests"]
    if summary["failure"]:
        raise RunError(f"the load broke off: {summary['failure']}")
    if counts["failed"] and not counts["ok"]:
        first = summary["errors"][0]["error"]
        raise RunError(f"all {counts['failed'] + counts['aborted']} requests failed; most of them: {first}")


def _write(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
