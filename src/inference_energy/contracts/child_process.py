"""Child processes that talk to their parent in JSON lines.

Messages go in on the child's standard input, events come out on its standard output.
An event is a mapping with its name under `event`. A child that cannot go on emits
`failed` with a code (2: an `InputError`, 1: another error) and a message, from which the parent makes the same error.
Only the standard library is imported here, because sampler and load workers must stay small.
"""

import json
import os
import select
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from inference_energy.errors import InputError, RunError

Event = dict[str, Any]

_STDOUT = 1


def error_fields(error: Exception) -> Event:
    """Return code and message of an error, as `failed` events carry them."""
    message = str(error) if isinstance(error, InputError | RunError | OSError) else f"{type(error).__name__}: {error}"
    return {"code": 2 if isinstance(error, InputError) else 1, "message": message}


def error_from_fields(fields: Mapping[str, Any], prefix: str = "") -> InputError | RunError:
    """Return the error that `error_fields` described, with a prefix to its message."""
    return (InputError if fields["code"] == 2 else RunError)(f"{prefix}{fields['message']}")


def emit(event: str, **facts: Any) -> None:
    """Write one event to the parent, waiting for a slow reader; it is lost where nobody reads.

    On a non-blocking standard output it is also lost where the pipe is full.
    """
    line = _line(event, facts)
    try:
        while line:
            line = line[os.write(_STDOUT, line) :]
    except OSError:
        return


def try_emit(event: str, **facts: Any) -> None:
    """Write one event unless that would have to wait for the parent."""
    line = _line(event, facts)
    writable = select.poll()
    writable.register(_STDOUT, select.POLLOUT)
    # A writable pipe has room for PIPE_BUF bytes, so a line no longer than that is written whole or not at all.
    if len(line) <= select.PIPE_BUF and writable.poll(0):
        emit(event, **facts)


def _line(event: str, facts: Mapping[str, Any]) -> bytes:
    return (json.dumps({"event": event, **facts}) + "\n").encode()


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package in this interpreter."""
    return [sys.executable, "-m", module, *arguments]


class ChildProcess:
    """A child process that emits events.

    It runs in a session of its own: a Ctrl-C at the terminal is for the parent, which then ends the child in order.

    Args:
        command: what to run; `python_module` makes it for a module.
        name: what errors call it.
        on_event: called with each event, in a thread that reads the child's output.
        on_exit: called in that thread once the child is gone and all its events were handed over.
        environment: variables in addition to this process's.

    Attributes:
        name: as given.
        failure: the event `failed`, once it came.
        exited: set once the child is gone and all its events were handed over.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        on_event: Callable[[Event], None],
        on_exit: Callable[[], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.failure: Event | None = None
        self.exited = threading.Event()
        self._command = list(command)
        self._on_event, self._on_exit = on_event, on_exit
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[str] | None = None
        self._stderr: deque[str] = deque(maxlen=20)
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """The process, once started."""
        return None if self._process is None else self._process.pid

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return self._process is not None

    def start(self) -> None:
        """Start the child and begin to read its events.

        Raises:
            OSError: the command cannot be run.
        """
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            env=self._environment,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True, name=self.name)
        self._reader.start()

    def alive(self) -> bool:
        """Whether the child was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one message to the child's standard input; it is lost if the child is gone."""
        assert self._process is not None and self._process.stdin is not None
        with suppress(OSError, ValueError):  # its end is gone, or ours is closed
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def end(self, timeout_s: float, *, terminate: bool = False) -> int:
        """Have the child end, and kill it after a timeout; returns its exit code.

        Args:
            timeout_s: how long it may take.
            terminate: send SIGTERM; otherwise its standard input is closed, upon which it ends.
        """
        process = self._process
        assert process is not None and process.stdin is not None and self._reader is not None
        with suppress(OSError):  # what was not flushed is lost with the child
            if terminate and process.poll() is None:
                process.terminate()
            elif not terminate:
                process.stdin.close()
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        self._reader.join(1.0)
        if not process.stdin.closed:
            with suppress(OSError):
                process.stdin.close()
        return code

    def kill(self) -> None:
        """Kill the child."""
        if self._process is not None:
            self._process.kill()

    def error(self, prefix: str = "") -> InputError | RunError:
        """Return why the child ended: the error that it reported, behind `prefix`, or its exit code and last words."""
        if self.failure is not None:
            return error_from_fields(self.failure, prefix)
        code = None if self._process is None else self._process.returncode
        return RunError(f"{self.name} died with exit code {code}{self.last_words()}")

    def last_words(self) -> str:
        """Return the end of its standard error behind a colon; empty where it wrote nothing."""
        words = "".join(self._stderr).strip()
        return f": {words}" if words else ""

    def _read(self, process: "subprocess.Popen[str]") -> None:
        """Hand over events until the child is gone."""
        assert process.stdout is not None and process.stderr is not None
        words = threading.Thread(target=self._stderr.extend, args=(process.stderr,), daemon=True)
        words.start()
        with process.stdout, process.stderr:
            for line in process.stdout:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue  # cut off by its death, or no event
                if not isinstance(event, dict) or "event" not in event:
                    continue
                if event["event"] == "failed":
                    self.failure = event
                self._on_event(event)
            process.wait()
            words.join(1.0)
        self.exited.set()
        if self._on_exit is not None:
            self._on_exit()
