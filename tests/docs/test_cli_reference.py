"""The command line's help: complete, light for the root, and the same in the reference page."""

import json
import re
import subprocess
import sys

import typer
from tests.docs.pages import ROOT
from tests.docs.test_commands import commands, group
from typer.testing import CliRunner

from inference_energy.cli.main import COMMANDS, app
from inference_energy.cli.reference import cli_page, plain


def test_the_page_is_in_step_with_the_commands() -> None:
    assert (ROOT / "docs/reference/cli.md").read_text() == cli_page(), "run `make docs`"


def test_every_command_has_help_and_it_or_its_group_an_example() -> None:
    root = group()
    context = typer.Context(root)
    for path, command in commands(root):
        name = " ".join(path)
        assert command.help, name
        parent = root.get_command(context, path[0])
        assert parent is not None
        epilog = plain(command.epilog or parent.epilog or "")
        assert f"inference-energy {path[0]}" in epilog or "Snakemake rules" in str(parent.help), name
        assert max(map(len, epilog.splitlines()), default=0) <= 78, f"{name}: a 80-column terminal breaks an example"
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name}: {parameter.name}"


def test_the_roots_help_says_what_the_commands_help_begins_with() -> None:
    root = group()
    for name, command in COMMANDS.items():
        loaded = root.get_command(typer.Context(root), name)
        assert loaded is not None
        first = " ".join(plain(loaded.help or "").split("\n\n")[0].split())
        assert command.summary == first


def test_the_roots_help_imports_no_command() -> None:
    code = (
        "import sys, json; sys.argv = ['x', '--help']\n"
        "from inference_energy.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(json.dumps([n for n in ('pydantic', 'numpy', 'pyarrow', 'aiohttp') if n in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert all(name in done.stdout for name in COMMANDS)


def test_brackets_are_shown_and_flags_have_no_type() -> None:
    shown = CliRunner().invoke(app, ["bench", "simulate", "--help"], env={"COLUMNS": "200"}).output
    assert "machines: [bench]" in shown
    shown = CliRunner().invoke(app, ["load-test", "--help"], env={"COLUMNS": "200"}).output
    assert "[s]" in shown
    assert "<bool>" not in shown
    assert not re.search(r"\*\*|\\\[", shown)
