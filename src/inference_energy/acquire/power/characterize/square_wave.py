"""The step load: on which schedule it switches, and what a sensor with a window makes of it.

The step load: on which schedule it switches, and what a sensor with a window makes of it.

The load that characterising makes: another process, which switches the GPU between full load and rest.

It is told `--gpu UUID --steps 1.5,1.6,...` (lengths in s of rest, load, rest, ...) and speaks JSON, one object a line:
`{"event": "ready", "what": ...}` once it can begin; on the line `go` at its standard input it begins;
`{"event": "edge", "time_ns": ..., "busy": ...}` whenever it has changed, in monotonic ns; `{"event": "done"}` at the
end; `{"event": "error", "message": ...}` where it cannot. It ends when its standard input does.
"""

import contextlib
import importlib.util
import json
import os
import queue
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from inference_energy.acquire.power.characterize.sensor_timing import Floats, Integers
from inference_energy.acquire.power.simulated import simulated_node
from inference_energy.errors import InputError, RunError

LEAD_S = 1.5
LONG_BUSY_S, LONG_REST_S = 1.6, 1.8
QUICK_STEPS, QUICKEST_S, SLOWEST_S = 8, 0.2, 0.4
_CYCLE_S = LONG_BUSY_S + QUICK_STEPS * (QUICKEST_S + SLOWEST_S) / 2 + LONG_REST_S
_SEED = 20260


def steps_for(duration_s: float) -> list[float]:
    """Lengths in s of rest, load, rest, ..., rest that take about `duration_s`, at least one cycle.

    A cycle is a long load, which a slow window fills; quick changes of irregular length, whose edges fall at all
    moments of a sensor's own period; and a long rest, in whose middle energies can be cut.
    """
    draw = np.random.default_rng(_SEED)
    cycles = max(1, int((duration_s - LEAD_S) / _CYCLE_S))
    steps = [LEAD_S]
    for _ in range(cycles):
        quick = [round(float(length_s), 3) for length_s in draw.uniform(QUICKEST_S, SLOWEST_S, QUICK_STEPS)]
        steps += [LONG_BUSY_S, *quick, LONG_REST_S]
    return steps


class Wave(NamedTuple):
    """A load that was switched.

    Attributes:
        edge_s: when it changed, ascending, shape (n,). Before the first edge it was at rest.
        busy: whether it worked from then on, shape (n,).
    """

    edge_s: Floats
    busy: Floats

    @classmethod
    def of(cls, edges: list[tuple[int, bool]], origin_ns: int) -> "Wave":
        """From (monotonic ns, busy), in s since `origin_ns`."""
        times_ns = np.array([time_ns for time_ns, _ in edges], dtype=np.int64)
        return cls((times_ns - origin_ns) / 1e9, np.array([busy for _, busy in edges], dtype=np.float64))

    def busy_s(self, times_s: Floats) -> Floats:
        """How long it has worked up to each time."""
        whole_s = np.concatenate(([0.0], np.cumsum(np.diff(self.edge_s) * self.busy[:-1])))
        place = np.searchsorted(self.edge_s, times_s, side="right") - 1
        inside = np.maximum(place, 0)
        since_s = (times_s - self.edge_s[inside]) * self.busy[inside]
        return np.where(place < 0, 0.0, whole_s[inside] + since_s)

    def works(self, times_s: Floats) -> Floats:
        """1 where it works, else 0."""
        place = np.searchsorted(self.edge_s, times_s, side="right") - 1
        return np.where(place < 0, 0.0, self.busy[np.maximum(place, 0)])

    def share(self, times_s: Floats, window_s: float, delay_s: float) -> Floats:
        """The share of load in the window of this length that ended `delay_s` before each time."""
        end_s = times_s - delay_s
        return (self.busy_s(end_s) - self.busy_s(end_s - window_s)) / window_s

    def cuts_s(self) -> Floats:
        """Moments at rest at which energies may be cut: in the middle of the long rests, and before the first load."""
        rest = self.busy == 0
        ends = np.append(self.edge_s[1:], self.edge_s[-1] + LONG_REST_S)
        long = rest & (ends - self.edge_s > SLOWEST_S + 0.5)
        first = self.edge_s[:1] - LEAD_S / 2
        return np.concatenate((first, ((self.edge_s + ends) / 2)[long]))


def edges_in_ns(steps: list[float], start_ns: int) -> list[tuple[int, bool]]:
    """When a load on this schedule changes if it begins with its first rest at `start_ns`."""
    ends_ns = start_ns + np.rint(np.cumsum(steps) * 1e9).astype(np.int64)
    times: Integers = ends_ns[:-1]
    return [(int(time_ns), index % 2 == 0) for index, time_ns in enumerate(times)]


VARIABLE = "INFERENCE_ENERGY_STEP_LOAD"
"""A command that makes the load in place of ours; the virtual bench names its own."""

PYTHON_VARIABLE = "INFERENCE_ENERGY_VLLM_PYTHON"
START_LIMIT_S = 180.0
WORDS_LIMIT_S = 2.0
SILENT_LIMIT_S = 30.0


def load_command(python: Path | None = None) -> list[str]:
    """What to run for the load: `VARIABLE`'s command, or PyTorch in a Python that has it.

    Args:
        python: the one that the user names.

    Raises:
        InputError: there is none, or the machine is simulated and names no load of its own.
    """
    if command := os.environ.get(VARIABLE):
        return shlex.split(command)
    if simulated_node() is not None:
        raise InputError(f"a simulated machine makes its own load: {VARIABLE} must name the command, or use --no-load")
    if python is not None:
        if not (python.is_file() and os.access(python, os.X_OK)):
            raise InputError(f"--load-python: {python} is no executable; write the path of a Python that has torch")
        return _torch(str(python))
    if importlib.util.find_spec("torch") is not None:
        return _torch(sys.executable)
    if named := os.environ.get(PYTHON_VARIABLE):
        return _torch(named)
    raise InputError(
        "the step load needs PyTorch, which this Python does not have: name one that has it by --load-python or "
        f"{PYTHON_VARIABLE}, or use --no-load and do without windows and ratios"
    )


def _torch(python: str) -> list[str]:
    # By -c, not as a file: a script's folder comes first on its path, and the names in it would hide other modules.
    return [python, "-c", files(__package__).joinpath("torch_load.py").read_text()]


class StepLoad:
    """A load that is ready; as a context manager it ends with the block.

    Args:
        command: from `load_command`.
        gpu: UUID.
        steps: lengths in s of rest, load, rest, ..., rest.
    """

    def __init__(self, command: Sequence[str], gpu: str, steps: Sequence[float]) -> None:
        self._command = [*command, "--gpu", gpu, "--steps", ",".join(f"{length_s:g}" for length_s in steps)]
        self._gpu = gpu
        self._silent_limit_s = max(steps) + SILENT_LIMIT_S
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[str] | None = None
        self._stderr: list[str] = []
        self._words = threading.Thread()
        self.what = ""

    def __enter__(self) -> Self:
        """Start and wait until it is ready.

        Raises:
            InputError: it cannot run here; the message is its own.
            RunError: it did not become ready.
        """
        pipe = subprocess.PIPE
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": self._gpu}
        try:
            # Its own session: a Ctrl-C at the terminal is for us, who then end it.
            self._process = subprocess.Popen(
                self._command,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                text=True,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise InputError(f"the step load cannot be run: {self._command[0]}: {error.strerror}") from error
        self._words = threading.Thread(target=self._keep_words, daemon=True)
        self._words.start()
        threading.Thread(target=self._follow, daemon=True).start()
        try:
            self.what = str(self._expect("ready", START_LIMIT_S).get("what", ""))
        except BaseException:
            self._end()
            raise
        return self

    def go(self) -> None:
        """Let it begin its first rest."""
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except OSError as error:
            raise RunError(f"the step load ended before it began{self._last_words()}") from error

    def edges(self) -> list[tuple[int, bool]]:
        """(monotonic ns, busy) of every change; waits until it is done.

        Raises:
            RunError: it ended early, or falls silent.
        """
        found = []
        while (event := self._next(self._silent_limit_s))["event"] != "done":
            if event["event"] == "edge":
                found.append((int(event["time_ns"]), bool(event["busy"])))
        return found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _expect(self, wanted: str, limit_s: float) -> dict[str, Any]:
        until_s = time.monotonic() + limit_s
        while True:
            event = self._next(max(0.0, until_s - time.monotonic()))
            if event["event"] == wanted:
                return event

    def _next(self, limit_s: float) -> dict[str, Any]:
        try:
            event = self._events.get(timeout=limit_s)
        except queue.Empty as error:
            raise RunError(f"the step load said nothing for {limit_s:.0f} s{self._last_words()}") from error
        if event is None:
            self._words.join(WORDS_LIMIT_S)  # they may come after the end of its output
            raise RunError(f"the step load ended early{self._last_words()}")
        if event["event"] == "error":
            raise InputError(f"the step load cannot run: {event.get('message')}")
        return event

    def _follow(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and "event" in event:
                    self._events.put(event)
        self._events.put(None)

    def _keep_words(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        for line in self._process.stderr:
            self._stderr[:] = [*self._stderr[-9:], line.strip()]

    def _last_words(self) -> str:
        return f": {' | '.join(self._stderr)[-500:]}" if self._stderr else ""

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
