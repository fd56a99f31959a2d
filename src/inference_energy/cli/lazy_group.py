"""Commands that are taken in when they are asked for.

The modules of all commands together take 200 MB, which `load-test` would hold while it measures.
"""

from collections.abc import Callable, Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
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
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            # Their names, for the list and for suggestions; the commands themselves come from `get_command`.
            self.commands = {**{name: TyperCommand(name) for name in commands}, **self.commands}

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name not in commands:
                return super().get_command(ctx, cmd_name)
            part = typer.Typer(rich_markup_mode="rich", context_settings=SETTINGS)
            # Without a callback an application of one command would be that command.
            part.callback()(lambda: None)
            commands[cmd_name](part)
            return get_group(part).commands[cmd_name]

    return LazyGroup
