"""A load so far, for progress: rates of the last seconds, and energy and tokens since the stage began.

A load so far, for progress: rates of the last seconds, and energy and tokens since the stage began.

Nothing of it is a result. Power is that of the newest readings, a quarter second at a time, and tokens are those that
have been counted by now.

Progress of a long run, as lines: stage, elapsed, remaining, and the load and its power so far.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from inference_energy.acquire.load.live_counts import LiveCounts

AFFECTS_RESULTS = False

SPAN_S = 5.0
"""Rates are those of the last seconds."""
UNMEASURED = ("simulated", "modelled")
"""What the name of a domain says of power that no sensor has."""


@dataclass(frozen=True)
class Figures:
    """What is shown; None for what is not known.

    Attributes:
        offered_qps: requests that were due, a second; None in a closed loop, which offers no rate.
        achieved_qps: requests that ended well, a second.
        tokens_per_s: output tokens, a second.
        in_flight, failed: requests.
        ttft_p50_s, ttft_p99_s: from when requests were due, over the whole stage.
        power_w: by domain, whose name says where it is modelled or simulated.
        energy_per_token_j: since the stage began, of these domains together; `unmeasured` is the word if a part is so.
    """

    offered_qps: float | None = None
    achieved_qps: float | None = None
    tokens_per_s: float | None = None
    in_flight: int = 0
    failed: int = 0
    ttft_p50_s: float | None = None
    ttft_p99_s: float | None = None
    power_w: Mapping[str, float] = field(default_factory=dict)
    energy_per_token_j: float | None = None
    unmeasured: str | None = None


class LiveStats:
    """Keeps count of a stage; `tick` is called a few times a second.

    Args:
        load: gives the counts of the cell under way; None while nothing is sent.
        tokens: gives output tokens so far, a count that only grows; without it those of the answers that have ended.
        power: gives the newest power by domain [W], of domains that may be added up.
        clock: the monotonic time [s].

    Attributes:
        power: as given; may be set later.
    """

    def __init__(
        self,
        load: Callable[[], LiveCounts | None] = lambda: None,
        tokens: Callable[[], int] | None = None,
        power: Callable[[], Mapping[str, float]] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._tokens = tokens or (lambda: (load() or LiveCounts()).completion_tokens)
        self.power = power
        self._clock = clock
        self.begin()

    def begin(self, *, closed: bool = False) -> None:
        """A stage begins: everything counts from here. `closed` is a closed loop."""
        self._closed = closed
        self._past: deque[tuple[float, int, int, int]] = deque()
        self._energy_j = 0.0
        self._seen_s: float | None = None
        self._first_tokens: int | None = None

    def tick(self) -> None:
        """Take note of how things stand."""
        counts, now_s = self._load(), self._clock()
        if counts is None:
            return
        if (power := self.power()) and self._seen_s is not None:
            self._energy_j += sum(power.values()) * (now_s - self._seen_s)
        self._seen_s = now_s
        tokens = self._tokens()
        if self._first_tokens is None:
            self._first_tokens = tokens
        self._past.append((now_s, counts.offered, counts.ok, tokens))
        while len(self._past) > 2 and now_s - self._past[1][0] >= SPAN_S:
            self._past.popleft()

    def figures(self) -> Figures | None:
        """What there is to show; with no load only the power, and None without that."""
        power, counts = self.power(), self._load()
        if counts is None or not self._past:
            return Figures(power_w=power) if power else None
        then, now = self._past[0], self._past[-1]
        span_s = now[0] - then[0]
        offered, achieved, per_s = (
            (new - old) / span_s if span_s else None for new, old in zip(now[1:], then[1:], strict=True)
        )
        tokens = now[3] - (self._first_tokens or 0)
        return Figures(
            offered_qps=None if self._closed else offered,
            achieved_qps=achieved,
            tokens_per_s=per_s,
            in_flight=counts.in_flight,
            failed=counts.failed,
            ttft_p50_s=counts.ttft.quantile_s(0.5),
            ttft_p99_s=counts.ttft.quantile_s(0.99),
            power_w=power,
            energy_per_token_j=self._energy_j / tokens if power and tokens > 0 and self._energy_j else None,
            unmeasured=next((word for word in UNMEASURED if any(word in name for name in power)), None),
        )


def format_stats(figures: Figures) -> dict[str, str]:
    """The figures as texts by what they are, without those that are not known."""
    found = {}
    if figures.offered_qps is not None:
        found["offered"] = f"{figures.offered_qps:.1f} req/s"
    if figures.achieved_qps is not None:
        found["achieved"] = f"{figures.achieved_qps:.1f} req/s"
        found["in flight"] = f"{figures.in_flight:,}"
        found["failed"] = f"{figures.failed:,}"
    if figures.tokens_per_s is not None:
        found["output"] = f"{figures.tokens_per_s:,.0f} tok/s"
    if figures.ttft_p50_s is not None and figures.ttft_p99_s is not None:
        found["TTFT p50/p99"] = f"{_seconds(figures.ttft_p50_s)} / {_seconds(figures.ttft_p99_s)}"
    if figures.power_w:
        found["power"] = " + ".join(f"{name} {power_w:.1f} W" for name, power_w in figures.power_w.items())
    if figures.energy_per_token_j is not None:
        grade = f" ({figures.unmeasured})" if figures.unmeasured else ""
        found["energy so far"] = f"{_joules(figures.energy_per_token_j)}/token{grade}"
    return found


def _seconds(duration_s: float) -> str:
    return f"{1000 * duration_s:.0f} ms" if duration_s < 1 else f"{duration_s:.1f} s"


def _joules(energy_j: float) -> str:
    return f"{1000 * energy_j:.3g} mJ" if energy_j < 1 else f"{energy_j:.3g} J"


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
        so_far: LiveStats | None = None,
        write: Callable[[str], object] | None = None,
    ) -> None:
        self._name = name
        self._stages = Stages(stages)
        self._printed_s = 0.0
        self.so_far = so_far or LiveStats()
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
            parts += [text if name == "power" else f"{name} {text}" for name, text in format_stats(figures).items()]
        self._write(" | ".join([*parts, note] if note else parts))


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
