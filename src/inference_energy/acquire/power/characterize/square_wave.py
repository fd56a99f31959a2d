"""A GPU load that switches between full load and rest: its schedule, its process, and the wave that comes of it.

The load is another process. It gets `--gpu UUID --steps 1.5,1.6,...` (lengths in s of rest, load, rest, ...) and emits
JSON, one object per line: `{"event": "ready", "what": ...}` once it can begin; after a first line on its standard input
it begins; `{"event": "edge", "time_ns": ..., "busy": ...}` after each change, in monotonic ns; `{"event": "done"}` at
the end; `{"event": "error", "message": ...}` where it cannot run. It ends when its standard input is closed.
"""

import importlib.util
import os
import queue
import shlex
import sys
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from inference_energy.acquire.power.characterize.sensor_timing import Floats
from inference_energy.acquire.power.simulated import simulated_node
from inference_energy.contracts.child_process import ChildProcess, Event
from inference_energy.errors import InputError, RunError

LEAD_S = 1.5
LONG_BUSY_S, LONG_REST_S = 1.6, 1.8
QUICK_STEPS, QUICKEST_S, SLOWEST_S = 8, 0.2, 0.4
_CYCLE_S = LONG_BUSY_S + QUICK_STEPS * (QUICKEST_S + SLOWEST_S) / 2 + LONG_REST_S
_SEED = 20260


def steps_for(duration_s: float) -> list[float]:
    """Return lengths in s of rest, load, rest, ..., rest: at least one cycle, about `duration_s` in all.

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
    """A load as it was switched.

    Attributes:
        edge_s: when it changed, ascending, shape (n,). Before the first edge it was at rest.
        busy: whether it worked from then on, shape (n,).
    """

    edge_s: Floats
    busy: Floats

    @classmethod
    def from_edges(cls, edges: list[tuple[int, bool]], origin_ns: int) -> "Wave":
        """Make a wave from (monotonic ns, busy) pairs, in s since `origin_ns`."""
        times_ns = np.array([time_ns for time_ns, _ in edges], dtype=np.int64)
        return cls((times_ns - origin_ns) / 1e9, np.array([busy for _, busy in edges], dtype=np.float64))

    def busy_s(self, times_s: Floats) -> Floats:
        """Return the busy time up to each time, in s."""
        whole_s = np.concatenate(([0.0], np.cumsum(np.diff(self.edge_s) * self.busy[:-1])))
        index = np.searchsorted(self.edge_s, times_s, side="right") - 1
        inside = np.maximum(index, 0)
        since_s = (times_s - self.edge_s[inside]) * self.busy[inside]
        return np.where(index < 0, 0.0, whole_s[inside] + since_s)

    def works(self, times_s: Floats) -> Floats:
        """Return 1 at times of load, else 0."""
        index = np.searchsorted(self.edge_s, times_s, side="right") - 1
        return np.where(index < 0, 0.0, self.busy[np.maximum(index, 0)])

    def share(self, times_s: Floats, window_s: float, delay_s: float) -> Floats:
        """Return the share of load in a window of this length that ended `delay_s` before each time."""
        end_s = times_s - delay_s
        return (self.busy_s(end_s) - self.busy_s(end_s - window_s)) / window_s

    def cuts_s(self) -> Floats:
        """Return moments at which energies may be cut: the middles of the long rests, and one before the first load."""
        rest = self.busy == 0
        ends = np.append(self.edge_s[1:], self.edge_s[-1] + LONG_REST_S)
        long = rest & (ends - self.edge_s > SLOWEST_S + 0.5)
        first = self.edge_s[:1] - LEAD_S / 2
        return np.concatenate((first, ((self.edge_s + ends) / 2)[long]))


VARIABLE = "INFERENCE_ENERGY_STEP_LOAD"
"""Environment variable with a command that makes the load instead; the virtual bench sets it."""

PYTHON_VARIABLE = "INFERENCE_ENERGY_VLLM_PYTHON"
START_LIMIT_S = 180.0
END_LIMIT_S = 5.0
SILENT_LIMIT_S = 30.0


def load_command(python: Path | None = None) -> list[str]:
    """Return the command of the load: that of `VARIABLE`, or PyTorch in a Python that has it.

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
        self._silent_limit_s = max(steps) + SILENT_LIMIT_S
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._child = ChildProcess(
            [*command, "--gpu", gpu, "--steps", ",".join(f"{length_s:g}" for length_s in steps)],
            name="the step load",
            on_event=self._events.put,
            on_exit=lambda: self._events.put(None),
            environment={"CUDA_VISIBLE_DEVICES": gpu},
        )
        self.what = ""

    def __enter__(self) -> Self:
        """Start and wait until it is ready.

        Raises:
            InputError: it cannot run here; the message says why.
            RunError: it did not become ready.
        """
        try:
            self._child.start()
        except OSError as error:
            raise InputError(f"the step load cannot be run: {error.filename}: {error.strerror}") from error
        try:
            self.what = str(self._expect("ready", START_LIMIT_S).get("what", ""))
        except BaseException:
            self._child.end(END_LIMIT_S)
            raise
        return self

    def go(self) -> None:
        """Let it begin its first rest."""
        self._child.send({"do": "go"})

    def edges(self) -> list[tuple[int, bool]]:
        """Wait until it is done, and return (monotonic ns, busy) of every change.

        Raises:
            RunError: it ended early, or emits nothing for too long.
        """
        edges = []
        while (event := self._next(self._silent_limit_s))["event"] != "done":
            if event["event"] == "edge":
                edges.append((int(event["time_ns"]), bool(event["busy"])))
        return edges

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.end(END_LIMIT_S)

    def _expect(self, kind: str, limit_s: float) -> Event:
        until_s = time.monotonic() + limit_s
        while True:
            event = self._next(max(0.0, until_s - time.monotonic()))
            if event["event"] == kind:
                return event

    def _next(self, limit_s: float) -> Event:
        try:
            event = self._events.get(timeout=limit_s)
        except queue.Empty as error:
            raise RunError(f"the step load said nothing for {limit_s:.0f} s{self._child.last_words()}") from error
        if event is None:
            raise RunError(f"the step load ended early{self._child.last_words()}")
        if event["event"] == "error":
            raise InputError(f"the step load cannot run: {event.get('message')}")
        return event
