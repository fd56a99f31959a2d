"""One call of a command-line tool, with a time limit; what goes wrong leaves as `SourceError`."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inference_energy.acquire.power.base import SourceError

MAX_WORDS = 300
"""Characters of a tool's output that an error repeats."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the tool wrote and its exit code."""

    code: int
    output: str
    errors: str

    @property
    def words(self) -> str:
        """What it said, for an error: standard error, else the output."""
        return shortened(self.errors) or shortened(self.output) or f"nothing, and ended with exit code {self.code}"


def ask(
    command: Sequence[str], *, timeout_s: float, install: str, environment: Mapping[str, str | None] | None = None
) -> Answer:
    """Run a tool to its end.

    Args:
        command: the tool and its arguments; no secrets, since every user sees them.
        timeout_s: when to kill it.
        install: what to do where the tool is missing.
        environment: as for `tool_environment`.

    Raises:
        SourceError: it cannot be started, or did not end in time.
    """
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            env=tool_environment(environment),
            check=False,
        )
    except OSError as error:
        raise SourceError(not_started(command[0], install, error)) from error
    except subprocess.TimeoutExpired as error:
        # From None: the exception's text would repeat the whole command line.
        raise SourceError(f"{command[0]} did not answer within {error.timeout:g} s") from None
    return Answer(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def tool_environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """The environment of a tool whose output is parsed: this process', in English and in UTC.

    Our own variables stay out: some hold the passwords of other devices. Of `changes`, None removes a variable.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("INFERENCE_ENERGY_")}
    environment: dict[str, str | None] = {**inherited, "LC_ALL": "C", "TZ": "UTC", **(changes or {})}
    return {name: value for name, value in environment.items() if value is not None}


def not_started(tool: str, install: str, error: OSError) -> str:
    """Why a tool did not start, and what to do."""
    if isinstance(error, FileNotFoundError):
        return f"the command {tool} is not here: {install}"
    if isinstance(error, PermissionError):
        return f"this user may not run {tool}: make it executable for this user"
    return f"{tool} cannot be started: {error.strerror}"


def shortened(text: str) -> str:
    """The text on one line, cut to its end where it is long: tools say last what stopped them."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_WORDS else "..." + line[-MAX_WORDS:]
