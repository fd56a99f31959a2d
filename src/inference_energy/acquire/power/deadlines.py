"""When to poll next: deadlines on a fixed grid of the monotonic clock, so that delays do not add up."""


class Deadlines:
    """The grid start, start + period, start + 2 period, ...

    A deadline that has passed while the work before it was still going on is skipped and counted in `missed`: polls
    made late in a burst would show the same sensor value twice.
    """

    def __init__(self, start_ns: int, period_ns: int) -> None:
        if period_ns <= 0:
            raise ValueError("the period must be above zero")
        self._start_ns = start_ns
        self._period_ns = period_ns
        self._index = 0
        self.missed = 0

    def advance(self, now_ns: int) -> int:
        """The next deadline after the current one that is still ahead of `now_ns`, in ns."""
        ahead = max(self._index + 1, (now_ns - self._start_ns) // self._period_ns + 1)
        self.missed += ahead - self._index - 1
        self._index = ahead
        return self._start_ns + ahead * self._period_ns
