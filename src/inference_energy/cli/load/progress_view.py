"""Progress of a load test: a table redrawn in place on a terminal, else the lines of the pipeline."""

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.acquire.session.live_stats import LiveStats, PhaseClock, Progress, clock, format_stats
from inference_energy.api.load_test.run import Display
from inference_energy.api.load_test.settings import LoadTest
from inference_energy.errors import Notice, Setting

PERIOD_S = 0.25
"""At most four times a second."""
BAR_WIDTH = 40


class View(Protocol):
    """A display of stages and live statistics."""

    def begin(self, stage: str, *, closed: bool = False) -> None:
        """A stage begins."""

    def tick(self) -> None:
        """Some time has passed."""

    def say(self, text: str) -> None:
        """Show a message at once."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show nothing more."""


class LoadDisplay(Display):
    """The progress of a load test on a console.

    Attributes:
        notes: what the plan left out, with settings as options.
    """

    def __init__(self, console: Console, test: LoadTest, spelled: Callable[[Setting], str]) -> None:
        self._console = console
        self._spelled = spelled
        self.notes: list[str] = []
        self._closed = False
        self._cell = ""
        self._counts: LiveCounts | None = None
        self._stats = LiveStats(load=lambda: self._counts)
        self._view = view_for(console, "load-test", [*test.cells.items()], self._stats)

    def note(self, notice: Notice) -> None:
        """See `Display`."""
        self.notes.append(notice.spelled(self._spelled))
        self._console.print(self.notes[-1], markup=False, highlight=False)

    def begin(self, *, closed: bool, power: Callable[[], Mapping[str, float]] | None) -> None:
        """See `Display`."""
        self._closed = closed
        if power is not None:
            self._stats.power = power
        self._view.__enter__()

    def tick(self, cell: str, counts: LiveCounts) -> None:
        """See `Display`."""
        self._counts = counts
        if cell != self._cell:
            self._cell = cell
            self._view.begin(cell, closed=self._closed)
        self._view.tick()

    def say(self, text: str) -> None:
        """See `Display`."""
        self._view.say(text)

    def end(self) -> None:
        """See `Display`."""
        self._view.__exit__(None, None, None)


class Lines(Progress):
    """A line every five seconds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Screen:
    """A progress bar and a table of the load so far, redrawn in place."""

    def __init__(self, console: Console, stages: Sequence[tuple[str, float]], so_far: LiveStats) -> None:
        self._stages = PhaseClock(stages)
        self._so_far = so_far
        self._drawn_s = 0.0
        # No refresh thread: it is redrawn when counts come in.
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def begin(self, stage: str, *, closed: bool = False) -> None:
        """See `View`."""
        self._stages.begin(stage)
        self._so_far.begin(closed=closed)
        self._draw()

    def tick(self) -> None:
        """See `View`."""
        self._so_far.tick()
        if time.monotonic() - self._drawn_s >= PERIOD_S * 0.9:
            self._draw()

    def say(self, text: str) -> None:
        """See `View`."""
        self._live.console.print(text, markup=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _draw(self) -> None:
        self._drawn_s = time.monotonic()
        self._live.update(self._content(), refresh=True)

    def _content(self) -> RenderableType:
        stages = self._stages
        head = Table.grid(padding=(0, 1))
        total_s = stages.planned_s or None
        head.add_row(
            Text(stages.name),
            ProgressBar(total=total_s, completed=stages.in_phase_s, width=BAR_WIDTH, pulse=total_s is None),
            Text(f"{clock(stages.in_phase_s)} of {clock(stages.planned_s)}" if total_s else clock(stages.in_phase_s)),
            Text(f"about {clock(stages.remaining_s)} left"),
        )
        figures = self._so_far.figures()
        if figures is None:
            return head
        table = Table.grid(padding=(0, 2))
        for name, text in format_stats(figures).items():
            style = "bold red" if name == "failed" and figures.failed else "bold"
            table.add_row(Text(name, style="dim"), Text(text, style=style))
        return Group(head, table)


def view_for(console: Console, name: str, stages: Sequence[tuple[str, float]], so_far: LiveStats) -> View:
    """Return the view that fits the console: a screen on a terminal, else lines."""
    if console.is_terminal:
        return Screen(console, stages, so_far)
    return Lines(name, stages, so_far)
