"""Progress of a long run: phase, time elapsed and left, and live statistics of the load and its power.

The statistics are indicative only: power is the latest reading, four times a second, and tokens the current count. They
are never reported as results, and no result depends on this module.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.acquire.power.simulated import simulated_node

AFFECTS_RESULTS = False

SPAN_S = 5.0
"""Rates are means over this time."""
LINE_PERIOD_S = 5.0
UNMEASURED = ("simulated", "modelled")
"""Words in the name of a domain whose power no sensor measures."""


def labelled_power(latest: Mapping[str, float]) -> dict[str, float]:
    """Return the newest power of the domains that may be added up [W].

    Args:
        latest: the newest power of each domain. In the result `cpu`, which no sensor measures, is marked as modelled,
            and all of a virtual node as simulated.
    """
    # Here, because it imports Arrow, and a load test without power does without.
    from inference_energy.contracts.power import summed_domains

    summed = summed_domains(latest)
    return {_label(domain): power_w for domain, power_w in latest.items() if domain in summed}


def _label(domain: str) -> str:
    if simulated_node() is not None:
        return f"{domain} (simulated)"
    return f"{domain} (modelled)" if domain == "cpu" else domain


@dataclass(frozen=True)
class LiveFigures:
    """The numbers to show; None if unknown.

    Attributes:
        offered_qps: rate at which requests were due; None in a closed loop, which offers no rate.
        achieved_qps: rate at which requests succeeded.
        tokens_per_s: rate of output tokens.
        in_flight, failed: requests.
        ttft_p50_s, ttft_p99_s: from when requests were due, over the whole phase.
        power_w: by domain, whose name includes modelled or simulated where it is.
        energy_per_token_j: since the phase began, of these domains together.
        unmeasured: `modelled` or `simulated` if a part of the power is.
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
    """Live statistics of a phase; `tick` is called a few times a second.

    Args:
        load: returns the counts of the current cell; None between cells.
        tokens: returns the output tokens so far, a count that only grows; by default the tokens of the answers that
            have ended.
        power: returns the newest power by domain [W], of domains that may be added up.
        clock: returns the monotonic time [s].

    Attributes:
        power: as above; may be set later.
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
        """Begin a phase: all sums start from here. `closed` means a closed loop."""
        self._closed = closed
        self._past: deque[tuple[float, int, int, int]] = deque()
        self._energy_j = 0.0
        self._seen_s: float | None = None
        self._first_tokens: int | None = None

    def tick(self) -> None:
        """Update the statistics."""
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

    def figures(self) -> LiveFigures | None:
        """Return the numbers to show; without load only the power, and None without power."""
        power, counts = self.power(), self._load()
        if counts is None or not self._past:
            return LiveFigures(power_w=power) if power else None
        then, now = self._past[0], self._past[-1]
        span_s = now[0] - then[0]
        offered, achieved, per_s = (
            (new - old) / span_s if span_s else None for new, old in zip(now[1:], then[1:], strict=True)
        )
        tokens = now[3] - (self._first_tokens or 0)
        return LiveFigures(
            offered_qps=None if self._closed else offered,
            achieved_qps=achieved,
            # Answers without a token count would show as a rate of zero.
            tokens_per_s=per_s if now[3] or not counts.ok else None,
            in_flight=counts.in_flight,
            failed=counts.failed,
            ttft_p50_s=counts.ttft.quantile_s(0.5),
            ttft_p99_s=counts.ttft.quantile_s(0.99),
            power_w=power,
            energy_per_token_j=self._energy_j / tokens if power and tokens > 0 and self._energy_j else None,
            unmeasured=next((word for word in UNMEASURED if any(word in name for name in power)), None),
        )


def format_stats(figures: LiveFigures) -> dict[str, str]:
    """Return the known numbers as texts, by their names."""
    texts = {}
    if figures.offered_qps is not None:
        texts["offered"] = f"{figures.offered_qps:.1f} req/s"
    if figures.achieved_qps is not None:
        texts["achieved"] = f"{figures.achieved_qps:.1f} req/s"
        texts["in flight"] = f"{figures.in_flight:,}"
        texts["failed"] = f"{figures.failed:,}"
    if figures.tokens_per_s is not None:
        texts["output"] = f"{figures.tokens_per_s:,.0f} tok/s"
    if figures.ttft_p50_s is not None and figures.ttft_p99_s is not None:
        texts["TTFT p50/p99"] = f"{_seconds(figures.ttft_p50_s)} / {_seconds(figures.ttft_p99_s)}"
    if figures.power_w:
        texts["power"] = " + ".join(f"{name} {power_w:.1f} W" for name, power_w in figures.power_w.items())
    if figures.energy_per_token_j is not None:
        grade = f" ({figures.unmeasured})" if figures.unmeasured else ""
        texts["energy so far"] = f"{_joules(figures.energy_per_token_j)}/token{grade}"
    return texts


def _seconds(duration_s: float) -> str:
    return f"{1000 * duration_s:.0f} ms" if duration_s < 1 else f"{duration_s:.1f} s"


def _joules(energy_j: float) -> str:
    return f"{1000 * energy_j:.3g} mJ" if energy_j < 1 else f"{energy_j:.3g} J"


class PhaseClock:
    """The position of a run among its planned phases.

    Args:
        planned: names and expected durations of the phases [s].
    """

    def __init__(self, planned: Sequence[tuple[str, float]]) -> None:
        self._to_come = list(planned)
        self._begun_s = time.monotonic()
        self._phase_begun_s = self._begun_s
        self.name = ""
        self.planned_s = 0.0

    def begin(self, phase: str) -> None:
        """Begin a phase, and remove it from the list of those to come."""
        self.name = phase
        self._phase_begun_s = time.monotonic()
        self.planned_s = next((planned for name, planned in self._to_come if name == phase), 0.0)
        self._to_come = [entry for entry in self._to_come if entry[0] != phase]

    @property
    def in_phase_s(self) -> float:
        """Duration of the phase so far."""
        return time.monotonic() - self._phase_begun_s

    @property
    def elapsed_s(self) -> float:
        """Duration of the run so far."""
        return time.monotonic() - self._begun_s

    @property
    def remaining_s(self) -> float:
        """Expected duration of the rest of the run."""
        return max(0.0, self.planned_s - self.in_phase_s) + sum(planned for _, planned in self._to_come)


class Progress:
    """Prints a line at the start of each phase and every five seconds.

    Lines rather than a live bar, since they also go into Snakemake's own output and the log file.

    Args:
        name: of the run.
        phases: planned phases, see `PhaseClock`.
        stats: of the load and the power.
        write: takes a line; by default it goes to standard error.
    """

    def __init__(
        self,
        name: str,
        phases: Sequence[tuple[str, float]],
        stats: LiveStats | None = None,
        write: Callable[[str], object] | None = None,
    ) -> None:
        self._name = name
        self._clock = PhaseClock(phases)
        self._printed_s = 0.0
        self.stats = stats or LiveStats()
        self._write = write or (lambda line: print(line, file=sys.stderr, flush=True))

    def begin(self, phase: str, *, closed: bool = False) -> None:
        """Begin a phase; `closed` means that its load is a closed loop."""
        self._clock.begin(phase)
        self.stats.begin(closed=closed)
        planned_s = self._clock.planned_s
        self._print("begins" if not planned_s else f"begins, about {clock(planned_s)}")

    def tick(self, note: str = "") -> None:
        """Update the statistics, and print a line if the last one is five seconds old."""
        self.stats.tick()
        if self._clock.name and time.monotonic() - self._printed_s >= LINE_PERIOD_S:
            self._print(note)

    def say(self, text: str) -> None:
        """Print a line with a text."""
        self._print(text)

    def _print(self, note: str) -> None:
        self._printed_s = time.monotonic()
        phase = self._clock
        of = f" of {clock(phase.planned_s)}" if phase.planned_s else ""
        parts = [
            f"[{self._name}] {phase.name}: {clock(phase.in_phase_s)}{of}",
            f"elapsed {clock(phase.elapsed_s)}, about {clock(phase.remaining_s)} left",
        ]
        if figures := self.stats.figures():
            parts += [text if name == "power" else f"{name} {text}" for name, text in format_stats(figures).items()]
        self._write(" | ".join([*parts, note] if note else parts))


def clock(seconds: float) -> str:
    """Format a duration as minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
