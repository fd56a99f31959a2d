"""When to poll next: deadlines on a fixed grid of the monotonic clock, so that delays do not add up."""


class Deadlines:
    """The grid start, start + period, start + 2 period, ...; with a phase, start and then the grid from start + phase.

    A deadline that has passed while the work before it was still going on is skipped and counted in `missed`: polls
    made late in a burst would show the same sensor value twice.
    """

    def __init__(self, start_ns: int, period_ns: int, phase_ns: int = 0) -> None:
        if period_ns <= 0 or not 0 <= phase_ns < period_ns:
            raise ValueError("the period must be above zero, and the phase from zero to below the period")
        self._grid_ns = start_ns + phase_ns
        self._period_ns = period_ns
        self._index = -1 if phase_ns else 0
        self._free_ns = start_ns + period_ns
        self.missed = 0

    def advance(self, now_ns: int) -> int:
        """The next deadline after the current one that is still ahead of `now_ns`, in ns."""
        ahead = max(self._index + 1, (now_ns - self._grid_ns) // self._period_ns + 1)
        # The way from start to the phased grid is shorter than a period: a first poll may take a whole one.
        if self._index >= 0 or now_ns >= self._free_ns:
            self.missed += ahead - self._index - 1
        self._index = ahead
        return self._grid_ns + ahead * self._period_ns
