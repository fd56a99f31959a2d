"""Processes for what needs Arrow and NumPy, so that their memory is gone while load is sent.

Each is a module that calls `answer`: its input is one JSON text on standard input, its output one on standard output.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from inference_energy.contracts.child_process import error_fields, error_from_fields
from inference_energy.errors import InputError, RunError

PACKAGE = "inference_energy.cli.load"


def call_subprocess(module: str, question: dict[str, Any]) -> dict[str, Any]:
    """Start a module of this package with a question and wait for its answer.

    Ctrl-C at the terminal does not reach it; where the parent is interrupted it is killed.

    Raises:
        InputError, RunError: what it raised; or it died.
    """
    # Its own session: a Ctrl-C is for the parent.
    with subprocess.Popen(
        [sys.executable, "-m", f"{PACKAGE}.{module}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(json.dumps(question))
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise RunError(f"the process `{module}` of the load test died with exit code {process.returncode}")
    answered: dict[str, Any] = json.loads(output.splitlines()[-1])
    if failure := answered.get("failed"):
        raise error_from_fields(failure)
    return answered


def serve_subprocess(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Be such a process: read the question, do the work, write its answer or the error that it raised."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    question = json.load(sys.stdin)
    try:
        answered = work(question)
    except (InputError, RunError) as error:
        answered = {"failed": error_fields(error)}
    sys.stdout.write(json.dumps(answered) + "\n")
