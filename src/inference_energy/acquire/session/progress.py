"""Progress of a long run, as lines: stage, elapsed, remaining, and the load and its power so far."""

import sys
import time
from collections.abc import Callable, Sequence

from inference_energy.acquire.session.so_far import SoFar, words

LINE_PERIOD_S = 5.0


class Stages:
    """Where a run stands among the stages that were planned for it.

    Args:
        planned: the stages' names and how long each takes [s].
    """

    def __init__(self, planned: Sequence[tuple[str, float]]) -> None:
        self._to_come = list(planned)
        self._begun_s = time.monotonic()
        self._stage_begun_s = self._begun_s
        self.name = ""
        self.planned_s = 0.0

    def begin(self, stage: str) -> None:
        """A stage begins; it is taken off the list of those to come."""
        self.name = stage
        self._stage_begun_s = time.monotonic()
        self.planned_s = next((planned for name, planned in self._to_come if name == stage), 0.0)
        self._to_come = [entry for entry in self._to_come if entry[0] != stage]

    @property
    def in_stage_s(self) -> float:
        """How long the stage has lasted."""
        return time.monotonic() - self._stage_begun_s

    @property
    def elapsed_s(self) -> float:
        """How long the run has lasted."""
        return time.monotonic() - self._begun_s

    @property
    def remaining_s(self) -> float:
        """About how long it still takes."""
        return max(0.0, self.planned_s - self.in_stage_s) + sum(planned for _, planned in self._to_come)


class Progress:
    """Prints a line at each stage's start and every five seconds.

    Lines rather than a live bar: Snakemake's own output and the log file want lines.

    Args:
        name: of the run.
        stages: what is planned, see `Stages`.
        so_far: of the load and the power.
        write: takes a line; by default it goes to standard error.
    """

    def __init__(
        self,
        name: str,
        stages: Sequence[tuple[str, float]],
        so_far: SoFar | None = None,
        write: Callable[[str], object] | None = None,
    ) -> None:
        self._name = name
        self._stages = Stages(stages)
        self._printed_s = 0.0
        self.so_far = so_far or SoFar()
        self._write = write or (lambda line: print(line, file=sys.stderr, flush=True))

    def begin(self, stage: str, *, closed: bool = False) -> None:
        """A stage begins; `closed` says that its load is a closed loop."""
        self._stages.begin(stage)
        self.so_far.begin(closed=closed)
        planned_s = self._stages.planned_s
        self._print("begins" if not planned_s else f"begins, about {clock(planned_s)}")

    def tick(self, note: str = "") -> None:
        """Take note, and print a line if the last one is five seconds old."""
        self.so_far.tick()
        if self._stages.name and time.monotonic() - self._printed_s >= LINE_PERIOD_S:
            self._print(note)

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self._print(text)

    def _print(self, note: str) -> None:
        self._printed_s = time.monotonic()
        stages = self._stages
        of = f" of {clock(stages.planned_s)}" if stages.planned_s else ""
        parts = [
            f"[{self._name}] {stages.name}: {clock(stages.in_stage_s)}{of}",
            f"elapsed {clock(stages.elapsed_s)}, about {clock(stages.remaining_s)} left",
        ]
        if figures := self.so_far.figures():
            parts += [text if name == "power" else f"{name} {text}" for name, text in words(figures).items()]
        self._write(" | ".join([*parts, note] if note else parts))


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
