"""Imports a command's module only when that command is invoked.

All modules together take 200 MB, which `load-test` would hold while it measures, and some seconds.
"""

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

SETTINGS = {"help_option_names": ["-h", "--help"]}


class LazyCommand(NamedTuple):
    """A command that the root's help lists without importing it.

    Attributes:
        module: the module whose function `register` adds the command, perhaps with others, to an application.
        panel: panel of the root's help that lists the command.
        summary: first paragraph of the command's help.
    """

    module: str
    panel: str
    summary: str


def examples(*commands: str) -> str:
    """Return the examples at the end of a command's help, one per paragraph, folded as a shell reads them."""
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(_folded(command) for command in commands)


def _folded(command: str) -> str:
    """Break before an option where a terminal of 80 columns would break without a backslash."""
    lines = [""]
    for part in re.split(r" (?=-)", command):
        if lines[-1] and len(lines[-1]) + len(part) > 74:
            lines.append(f"  {part}")
        else:
            lines[-1] += f" {part}" if lines[-1] else part
    return " \\\n".join(lines)


def lazy_group(commands: Mapping[str, LazyCommand]) -> type[TyperGroup]:
    """Return a class for `typer.Typer(cls=...)` that adds these commands to its own, imported on use."""

    class LazyGroup(TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            # For the list and for suggestions; the commands themselves come from `get_command`.
            listed = {
                name: TyperCommand(name, help=command.summary, rich_help_panel=command.panel)
                for name, command in commands.items()
            }
            self.commands = {**listed, **self.commands}
            self._lists = False
            _tidy(self)

        def format_help(self, ctx: Any, formatter: Any) -> None:
            self._lists = True
            super().format_help(ctx, formatter)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if self._lists or cmd_name not in commands:
                return super().get_command(ctx, cmd_name)
            part = typer.Typer(rich_markup_mode="rich", context_settings=SETTINGS)
            # Without a callback an application of one command would be that command.
            part.callback()(lambda: None)
            import_module(commands[cmd_name].module).register(part)
            command = get_group(part).commands[cmd_name]
            _tidy(command)
            return command

    return LazyGroup


def _tidy(command: Any) -> None:
    """Show brackets in the help literally, not as markup, and flags without a value type."""
    command.help = _escaped(command.help)
    get_params = command.get_params

    def tidy_params(ctx: Any) -> Any:
        params = get_params(ctx)
        for param in params:
            param.help = _escaped(param.help)
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params

    command.get_params = tidy_params
    for part in getattr(command, "commands", {}).values():
        _tidy(part)


def _escaped(text: str | None) -> str | None:
    return text and re.sub(r"(?<!\\)\[", r"\\[", text)
