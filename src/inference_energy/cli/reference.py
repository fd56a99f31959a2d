"""Reference page of the command line, generated from the commands."""

import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from inference_energy.cli.main import app

HEAD = """# Command line

Written by `inference-energy document --cli`; change the commands' own help instead.

"""


def cli_page() -> str:
    """Return the page in Markdown: help, usage, arguments, options and examples of every command."""
    root = get_command(app)
    sections = [section for command in _commands(root, "inference-energy") for section in _section(*command)]
    return HEAD + "\n\n".join(sections) + "\n"


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name in group.commands:
        command = group.get_command(None, name)
        yield f"{path} {name}", command
        if getattr(command, "commands", None):
            yield from _commands(command, f"{path} {name}")


def _section(path: str, command: Any) -> Iterator[str]:
    """Yield the paragraphs and tables of a command."""
    depth = len(path.split())
    yield f"{'#' * depth} `{path.removeprefix('inference-energy ')}`"
    yield plain(command.help)
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    names = [f"{argument.name.upper()}{'...' if argument.nargs != 1 else ''}" for argument in arguments]
    usage = [path, "[OPTIONS]", *names]
    if getattr(command, "commands", None):
        usage.append("COMMAND")
    yield f"```text\n{' '.join(usage)}\n```"
    panels: dict[str, list[Any]] = {}
    for parameter in command.params:
        panels.setdefault(getattr(parameter, "rich_help_panel", None) or "", []).append(parameter)
    for panel, parameters in panels.items():
        yield "\n".join([f"| {panel or 'Options'} | |", "|---|---|", *map(_row, parameters)])
    if command.epilog:
        yield f"```sh\n{plain(command.epilog).removeprefix('Examples').strip()}\n```"


def _row(parameter: Any) -> str:
    is_flag = getattr(parameter, "is_flag", False)
    if parameter.param_type_name == "argument":
        name = parameter.name.upper()
    else:
        name = ", ".join(parameter.opts) + ("" if is_flag else f" {parameter.metavar or _type_name(parameter)}")
    text = plain(parameter.help or "")
    if parameter.required and parameter.param_type_name == "option":
        text += " Required."
    elif not is_flag and parameter.default not in (None, ()) and "[default: " not in text:
        text += f" [default: {parameter.default}]"
    return f"| `{name}` | {text} |".replace("|]", "\\|]")


def _type_name(parameter: Any) -> str:
    """Return the type of an option's value: INT of `<int range>`, STR of `<list[str]>`."""
    label = str(parameter.display_type_rich(None)).strip("<>").removeprefix("list[").removesuffix("]")
    return label.split()[0].upper()


def plain(text: str) -> str:
    """Return help without markup."""
    return re.sub(r"(?<!\\)\[/?bold\]", "", text).replace("\\[", "[")
