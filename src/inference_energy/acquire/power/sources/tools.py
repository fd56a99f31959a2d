"""Command line tools as sources: called once with a time limit, or kept running for their stream of lines.

A tool that streams is started again when it ends, after a pause that doubles until it gives readings again. Its
readings wait in `UnreadSamples` for their `StreamChannel`. All that goes wrong leaves as `SourceError`.
"""

import contextlib
import os
import selectors
import subprocess
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from inference_energy.acquire.power.base import PowerSample, SensorChannel, SourceError
from inference_energy.contracts.outside import MIB, megabytes

LONGEST_OUTPUT_BYTES = 4 * MIB

MAX_WORDS = 300
"""Characters of a tool's output that an error repeats."""


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """Output and exit code of a tool."""

    code: int
    output: str
    errors: str

    @property
    def words(self) -> str:
        """The end of its standard error, else of its output, for messages."""
        return shortened(self.errors) or shortened(self.output) or f"nothing, and ended with exit code {self.code}"


def run_tool(
    command: Sequence[str], *, timeout_s: float, install: str, environment: Mapping[str, str | None] | None = None
) -> ToolOutput:
    """Run a tool to its end.

    Args:
        command: the tool and its arguments; no secrets, since every user sees them.
        timeout_s: when to kill it.
        install: remedy for a missing tool, for the message.
        environment: as for `tool_environment`.

    Raises:
        SourceError: it cannot be started, or did not end in time.
    """
    until_s = time.monotonic() + timeout_s
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=tool_environment(environment),
        )
    except OSError as error:
        raise SourceError(not_started(command[0], install, error)) from error
    with process:
        texts, why = _outputs(process, until_s)
        if why is not None:
            process.kill()
            raise SourceError(f"{command[0]} {why.format(seconds=timeout_s)}")
    return ToolOutput(process.returncode, *texts)


def _outputs(process: "subprocess.Popen[bytes]", until_s: float) -> tuple[list[str], str | None]:
    """Return what a tool writes to its end, as texts, and why it must be killed before that."""
    assert process.stdout is not None and process.stderr is not None
    contents = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in contents:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            if (left_s := until_s - time.monotonic()) <= 0:
                return [], "did not answer within {seconds:g} s"
            for key, _ in selector.select(left_s):
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fileobj)
                content = next(content for stream, content in contents.items() if stream is key.fileobj)
                content += chunk
                if len(content) > LONGEST_OUTPUT_BYTES:
                    return [], f"writes more than {megabytes(LONGEST_OUTPUT_BYTES)}"
    try:
        process.wait(max(0.1, until_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        return [], "did not end within {seconds:g} s"
    return [content.decode(errors="replace") for content in contents.values()], None


def tool_environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Return the environment of a tool whose output is parsed: that of this process, in English and in UTC.

    The toolkit's own variables are left out, because some hold passwords of other devices. None in `changes` removes a
    variable.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("INFERENCE_ENERGY_")}
    environment: dict[str, str | None] = {**inherited, "LC_ALL": "C", "TZ": "UTC", **(changes or {})}
    return {name: value for name, value in environment.items() if value is not None}


def not_started(tool: str, install: str, error: OSError) -> str:
    """Return why a tool did not start, and the remedy."""
    if isinstance(error, FileNotFoundError):
        return f"the command {tool} is not here: {install}"
    if isinstance(error, PermissionError):
        return f"this user may not run {tool}: make it executable for this user"
    return f"{tool} cannot be started: {error.strerror}"


def shortened(text: str) -> str:
    """Return the text on one line, only its end if it is long, because tools write the cause last."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_WORDS else "..." + line[-MAX_WORDS:]


FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
LINE_LIMIT = 65536
PATIENT_PERIODS = 3
SHORTEST_PATIENCE_S = 0.3
LONGEST_WAIT_S = 5.0
MOST_UNREAD = 1000

Key = tuple[str, str]
"""Device and domain."""


class LineStream:
    """A running tool.

    Args:
        name: the tool's, for messages.
        command: the tool and its arguments.
        take: gets each whole line without its end and its arrival in monotonic ns, in the stream's own thread; returns
            whether it could use it. A line that was cut off when the tool died never reaches it.
        install: what to do where the tool is missing.
        began: called before the first line of each start of the tool.
        environment: changes to the tool's environment; None removes a variable.
        pause_s: the first pause before the tool is started again.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        take: Callable[[str, int], bool],
        *,
        install: str,
        began: Callable[[], None] = lambda: None,
        environment: Mapping[str, str | None] | None = None,
        pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._name = name
        self._command = list(command)
        self._take = take
        self._install = install
        self._began = began
        self._environment = environment
        self._pause_s = pause_s
        self._words: deque[str] = deque(maxlen=8)
        self._down: str | None = None
        self._useful = False
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_running, daemon=True, name=f"stream-{name}")

    @property
    def down(self) -> str | None:
        """Why the tool ended or did not start; None after its first useful line."""
        return self._down

    def start(self) -> None:
        """Start the tool and the thread that follows it."""
        self._thread.start()

    def why_silent(self) -> str:
        """Return why there are no new readings, for a message."""
        if self._down is not None:
            return f"{self._down}; it is started again"
        words = shortened(" ".join(self._words))
        if words and not self._useful:
            return f"{self._name} runs, but its output is not understood: {words}"
        return f"{self._name} runs, but writes nothing about it" + (f"; it said: {words}" if words else "")

    def close(self, timeout_s: float = 3.0) -> None:
        """Terminate the tool; kill it after a timeout."""
        with self._lock:
            self._closing.set()
            process = self._process
        if process is not None:
            # A tool under sudo cannot be signaled from here: it ends at its next line, which nobody reads.
            with contextlib.suppress(PermissionError):
                process.terminate()
                try:
                    process.wait(timeout_s)
                except subprocess.TimeoutExpired:
                    process.kill()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _keep_running(self) -> None:
        pause_s = self._pause_s
        while not self._closing.is_set():
            useful = self._run()
            pause_s = self._pause_s if useful else min(2 * pause_s, LONGEST_PAUSE_S)
            self._closing.wait(pause_s)

    def _run(self) -> bool:
        """Run the tool to its end; return whether it gave a useful line."""
        pipe = subprocess.PIPE
        with self._lock:
            if self._closing.is_set():
                return False
            try:
                # Its own session: a Ctrl-C at the terminal is for the owner, who then ends the tool in order.
                process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=pipe,
                    stderr=pipe,
                    env=tool_environment(self._environment),
                    start_new_session=True,
                )
            except OSError as error:
                self._down = not_started(self._command[0], self._install, error)
                return False
            self._process = process
        self._words.clear()
        self._useful = False
        with process:
            assert process.stdout is not None and process.stderr is not None
            errors = threading.Thread(target=self._keep_words, args=(process.stderr,), daemon=True)
            errors.start()
            self._began()
            whole = True
            while raw := process.stdout.readline(LINE_LIMIT):
                arrived_ns = time.monotonic_ns()
                # The end of a line that is longer than the limit is no line.
                began, whole = whole, raw.endswith(b"\n")
                line = raw.decode(errors="replace").strip()
                if not began or not whole or not line:
                    continue
                if self._take(line, arrived_ns):
                    self._useful = True
                    self._down = None
                else:
                    self._words.append(line[-MAX_WORDS:])
            code = process.wait()
            errors.join(1.0)
        words = shortened(" ".join(self._words))
        self._down = f"{self._name} ended with exit code {code}" + (f": {words}" if words else "")
        return self._useful

    def _keep_words(self, stream: IO[bytes]) -> None:
        while raw := stream.readline(LINE_LIMIT):
            if line := raw.decode(errors="replace").strip():
                self._words.append(line[-MAX_WORDS:])


class UnreadSamples:
    """Readings by device and domain, each given once, in order. Safe between threads."""

    def __init__(self) -> None:
        self._readings: defaultdict[Key, deque[PowerSample]] = defaultdict(lambda: deque(maxlen=MOST_UNREAD))
        self._seen: set[Key] = set()
        self._changed = threading.Condition()

    def put(self, key: Key, reading: PowerSample) -> None:
        """Add a reading; of more than `MOST_UNREAD` readings the oldest is dropped."""
        with self._changed:
            self._readings[key].append(reading)
            self._seen.add(key)
            self._changed.notify_all()

    def take(self, key: Key, wait_s: float = 0.0) -> list[PowerSample]:
        """Return the readings of a key since the last call, oldest first; wait up to `wait_s` for a first one."""
        with self._changed:
            self._changed.wait_for(lambda: self._readings[key], wait_s)
            taken = list(self._readings[key])
            self._readings[key].clear()
            return taken

    def wait_for(self, keys: Collection[Key], timeout_s: float, give_up: Callable[[], bool]) -> set[Key]:
        """Wait until each key had a reading, or until `give_up`; return the keys without one."""
        until_s = time.monotonic() + timeout_s
        with self._changed:
            while not self._seen.issuperset(keys) and time.monotonic() < until_s and not give_up():
                self._changed.wait(0.05)
            return set(keys) - self._seen


class StreamChannel(SensorChannel):
    """The readings of one device and domain in a stream.

    Args:
        source: name of the source.
        key: device and domain.
        grade: see `SensorChannel`.
        unread: where the stream puts the readings.
        stream: the tool.
        line_period_s: how often the tool gives a reading.
        period_s: see `SensorChannel`.
        why_silent: explains a silence; None uses the stream's own explanation.
    """

    def __init__(
        self,
        source: str,
        key: Key,
        grade: str,
        unread: UnreadSamples,
        stream: LineStream,
        *,
        line_period_s: float,
        period_s: float | None = None,
        why_silent: Callable[[], str] | None = None,
    ) -> None:
        super().__init__(source, *key, grade, period_s)
        self._key = key
        self._unread = unread
        self._why_silent = why_silent or stream.why_silent
        self._patience_s = max(PATIENT_PERIODS * line_period_s, SHORTEST_PATIENCE_S)
        self._last_s = time.monotonic()

    def read(self) -> PowerSample:
        """Wait for new readings and return the newest."""
        wait_s = min(self._patience_s, LONGEST_WAIT_S)
        readings = self._unread.take(self._key, wait_s)
        if not readings:
            raise SourceError(self._silence(wait_s))
        return self._good(readings)[-1]

    def read_many(self) -> list[PowerSample]:
        """Return all new readings without waiting."""
        readings = self._unread.take(self._key)
        now_s = time.monotonic()
        if readings:
            self._last_s = now_s
            return self._good(readings)
        if now_s - self._last_s > self._patience_s:
            raise SourceError(self._silence(now_s - self._last_s))
        return []

    def _good(self, readings: list[PowerSample]) -> list[PowerSample]:
        """Return the readings with a power above zero, because a device that is on draws some."""
        good = [reading for reading in readings if reading.power_w]
        if good:
            return good
        where = f"{self.source} for {self.domain} of {self.device}"
        if readings[-1].power_w is None:
            raise SourceError(f"{where}: no power at present")
        raise SourceError(f"{where}: reads 0 W, which nothing draws that is on: its sensor does not work")

    def _silence(self, silent_s: float) -> str:
        return f"no line for {self.domain} of {self.device} in {silent_s:.2g} s: {self._why_silent()}"
