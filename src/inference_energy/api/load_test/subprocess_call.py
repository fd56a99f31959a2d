"""Call functions in a separate process, so that their imports take no memory while load is sent."""

import json
import signal
import sys
import traceback
from dataclasses import asdict
from importlib import import_module
from typing import Any

from inference_energy.contracts.child_process import ChildProcess, Event, emit, error_fields, python_module
from inference_energy.errors import InputError, Notice, RunError


def call_subprocess(function: str, argument: dict[str, Any]) -> dict[str, Any]:
    """Call a function with one JSON object in a new process, and return the JSON object that it returns.

    Ctrl-C at the terminal does not reach the process; if this one is interrupted, it is killed.

    Args:
        function: its module and name, as `package.module:name`.
        argument: its only argument.

    Raises:
        InputError, RunError: as the function raised it; RunError also if the process died.
    """
    events: list[Event] = []
    command = python_module(__name__, function)
    child = ChildProcess(
        command, name=f"the process `{function.rpartition(':')[2]}` of the load test", on_event=events.append
    )
    child.start()
    try:
        child.send(argument)
        child.exited.wait()
    except BaseException:
        child.kill()
        raise
    finally:
        child.end(timeout_s=1.0)
    if child.failure and "notice" in child.failure:
        notice = Notice.from_dict(child.failure["notice"])
        raise InputError(notice.text, key=notice.key, write=notice.write)
    results: list[dict[str, Any]] = [event["result"] for event in events if event["event"] == "result"]
    if not results:
        raise child.error()
    if warnings := child.last_words().removeprefix(": "):
        print(warnings, file=sys.stderr)
    return results[0]


def _serve(function: str) -> None:
    """Be the new process: read the argument from standard input, emit the result or the error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    argument = json.loads(sys.stdin.readline())
    module, _, name = function.partition(":")
    try:
        emit("result", result=getattr(import_module(module), name)(argument))
    except InputError as error:
        emit("failed", **error_fields(error), notice=asdict(error.notice))
    except Exception as error:  # the parent has no other way to learn of it
        if not isinstance(error, RunError | OSError):
            traceback.print_exc()
            error = RunError(f"{name} of the load test failed, a fault of the toolkit: {type(error).__name__}: {error}")
        emit("failed", **error_fields(error))


if __name__ == "__main__":
    _serve(sys.argv[1])
