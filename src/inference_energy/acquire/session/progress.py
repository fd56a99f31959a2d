"""Progress of a long run, as lines: stage, elapsed, remaining, W, tok/s, requests in flight."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence

LINE_PERIOD_S = 5.0


class Progress:
    """Prints a line at each stage's start and every five seconds.

    Lines rather than a live bar: Snakemake's own output and the log file want lines.

    Attributes:
        power: gives the newest power by name [W]; the name says `modelled` where it is.
        in_flight: gives the requests under way.
        tokens: gives the tokens seen so far.
    """

    def __init__(
        self,
        name: str,
        stages: Sequence[tuple[str, float]],
        *,
        power: Callable[[], Mapping[str, float]] = dict,
        in_flight: Callable[[], int] | None = None,
        tokens: Callable[[], int] | None = None,
        write: Callable[[str], object] | None = None,
    ) -> None:
        self._name = name
        self._stages = list(stages)
        self._begun_s = time.monotonic()
        self._stage = ""
        self._stage_begun_s = self._begun_s
        self._stage_planned_s = 0.0
        self._printed_s = 0.0
        self._last_tokens = (self._begun_s, 0)
        self.power = power
        self.in_flight = in_flight
        self.tokens = tokens
        self._write = write or (lambda line: print(line, file=sys.stderr, flush=True))

    def begin(self, stage: str) -> None:
        """A stage begins; it is taken off the list of those to come."""
        self._stage = stage
        self._stage_begun_s = time.monotonic()
        self._stage_planned_s = next((planned for name, planned in self._stages if name == stage), 0.0)
        self._stages = [entry for entry in self._stages if entry[0] != stage]
        self._print("begins" if not self._stage_planned_s else f"begins, about {_clock(self._stage_planned_s)}")

    def tick(self, note: str = "") -> None:
        """Print a line if the last one is five seconds old."""
        if self._stage and time.monotonic() - self._printed_s >= LINE_PERIOD_S:
            self._print(note)

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self._print(text)

    def _print(self, note: str) -> None:
        now_s = time.monotonic()
        self._printed_s = now_s
        in_stage_s = now_s - self._stage_begun_s
        remaining_s = max(0.0, self._stage_planned_s - in_stage_s) + sum(planned for _, planned in self._stages)
        parts = [
            f"[{self._name}] {self._stage}: {_clock(in_stage_s)} of {_clock(self._stage_planned_s)}"
            if self._stage_planned_s
            else f"[{self._name}] {self._stage}: {_clock(in_stage_s)}",
            f"elapsed {_clock(now_s - self._begun_s)}, about {_clock(remaining_s)} left",
        ]
        if power := self.power():
            parts.append(" + ".join(f"{name} {value:.1f} W" for name, value in power.items()))
        if self.tokens is not None:
            last_s, last = self._last_tokens
            count = self.tokens()
            if now_s - last_s >= 1:
                parts.append(f"{(count - last) / (now_s - last_s):.0f} tok/s")
                self._last_tokens = (now_s, count)
        if self.in_flight is not None:
            parts.append(f"{self.in_flight()} in flight")
        if note:
            parts.append(note)
        self._write(" | ".join(parts))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
