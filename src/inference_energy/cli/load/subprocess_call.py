"""Functions called in a process of their own, so that what they import is gone from memory while load is sent."""

import json
import signal
import subprocess
import sys
from importlib import import_module
from typing import Any

from inference_energy.errors import InputError, RunError


def call_subprocess(function: str, argument: dict[str, Any]) -> dict[str, Any]:
    """Call a function with one JSON object in a new process, and return the JSON object that it returns.

    Ctrl-C at the terminal does not reach the process; if this one is interrupted, it is killed.

    Args:
        function: its module and name, as `package.module:name`.
        argument: its only argument.

    Raises:
        InputError, RunError: as the function raised it; RunError also if the process died.
    """
    # In a session of its own, because a Ctrl-C is for this process.
    with subprocess.Popen(
        [sys.executable, "-m", __name__, function],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(json.dumps(argument))
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise RunError(f"the process `{function}` died with exit code {process.returncode}")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    if error := result.get("error"):
        raise (InputError if error["code"] == 2 else RunError)(error["message"])
    return result


def _serve(function: str) -> None:
    """Be the new process: read the argument from standard input, write the result or the error to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    argument = json.load(sys.stdin)
    module, _, name = function.partition(":")
    try:
        result = getattr(import_module(module), name)(argument)
    except (InputError, RunError) as error:
        result = {"error": {"code": 2 if isinstance(error, InputError) else 1, "message": str(error)}}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    _serve(sys.argv[1])
