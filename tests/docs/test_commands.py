"""Every command in the documentation exists with its options, and every command is documented."""

import re
import shlex
from collections.abc import Iterator

import pytest
import typer
from tests.docs.pages import BLOCKS, PAGES, ROOT
from typer.core import TyperCommand, TyperGroup

from inference_energy.cli.main import app

PROGRAM = "inference-energy"
_SHELL = ("sh", "bash", "console", "")


def group() -> TyperGroup:
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    return command


def commands(parent: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], TyperCommand]]:
    """All commands without subcommands, with their names."""
    context = typer.Context(parent)
    for name in parent.list_commands(context):
        command = parent.get_command(context, name)
        assert command is not None
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def calls() -> list[tuple[str, list[str]]]:
    """Each call of the program in a shell block: where it stands, and its words."""
    result = []
    for block in BLOCKS:
        if block.language not in _SHELL:
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="&|;<>()")
            lexer.whitespace_split = True
            try:
                words = list(lexer)
            except ValueError:
                continue
            while PROGRAM in words:
                words = words[words.index(PROGRAM) + 1 :]
                end = next((i for i, word in enumerate(words) if re.fullmatch(r"[&|;<>()]+|--", word)), len(words))
                result.append((str(block), words[:end]))
    return result


CALLS = calls()


@pytest.mark.parametrize(
    ("place", "words"), CALLS, ids=[f"{place}-{words[0] if words else ''}" for place, words in CALLS]
)
def test_a_call_names_an_existing_command_and_options(place: str, words: list[str]) -> None:
    command: TyperGroup | TyperCommand = group()
    context = typer.Context(command)
    rest = list(words)
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name.isupper():
            return  # a placeholder
        child = command.get_command(context, name)
        assert child is not None, f"{place}: there is no command {name}"
        command, context = child, typer.Context(child)
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        if word.startswith("-") and not re.fullmatch(r"-?-?\d.*", word):
            option = word.partition("=")[0]
            assert option in options | {"--help", "-h"}, f"{place}: {command.name} has no option {option}"


def test_every_command_is_in_the_hand_written_pages() -> None:
    text = "\n".join(page.read_text() for page in PAGES if page.name != "cli.md")
    undocumented = [
        " ".join(path)
        for path, command in commands(group())
        if not command.hidden and path[0] != "stage" and f"{PROGRAM} {' '.join(path)}" not in text
    ]
    assert undocumented == []


def test_every_target_of_make_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in BLOCKS:
        if block.language in _SHELL:
            for target in re.findall(r"^make (?:[A-Z]+=\S+ )?([a-z-]+)", block.text, re.MULTILINE):
                assert target in targets, f"{block}: make {target}"
