"""Commands that are taken in when they are asked for.

The modules of all commands together take 200 MB, which `load-test` would hold while it measures.
"""

from collections.abc import Callable, Mapping
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

Register = Callable[[typer.Typer], None]

SETTINGS = {"help_option_names": ["-h", "--help"]}


def lazy_group(commands: Mapping[str, Register]) -> type[TyperGroup]:
    """A class for `typer.Typer(cls=...)` with these commands besides those that it is given.

    Args:
        commands: for each command the function that imports its module and adds it to an application, perhaps with
            others.
    """

    class LazyGroup(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return [*commands, *(name for name in super().list_commands(ctx) if name not in commands)]

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name not in commands:
                return super().get_command(ctx, cmd_name)
            part = typer.Typer(rich_markup_mode="rich", context_settings=SETTINGS)
            # Without a callback an application of one command would be that command.
            part.callback()(lambda: None)
            commands[cmd_name](part)
            return get_group(part).commands[cmd_name]

    return LazyGroup
