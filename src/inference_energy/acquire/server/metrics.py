"""The server's own metrics (/metrics, Prometheus text): a reader of pages, a poller, and its log.

A page of vLLM has some hundred lines, most of them buckets, and a line's name and labels are the same on every page. So
prometheus_client parses a line when it is new; from then on its text up to the value is a key.

The log is an append-only Arrow stream, which later becomes server_metrics.parquet. Names and labels are written once,
when they first appear; a row is 24 bytes.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from prometheus_client.parser import text_string_to_metric_families

from inference_energy.acquire.server.pages import Access, PageError, ServerPages
from inference_energy.contracts.arrow_log import ArrowLog, LogStats, compact_logs
from inference_energy.contracts.engine_metrics import ENGINES, MODEL, engine_of, group_series
from inference_energy.contracts.outside import MAX_SERIES
from inference_energy.contracts.server_metrics import ON_CHANGE, SCHEMA

# Name and labels, then the value: labels may hold spaces, a value has none.
_LINES = re.compile(
    rb"^((?:%s).*\S)[ \t]+(\S+)[ \t]*\r?$" % b"|".join(re.escape(engine.prefix.encode()) for engine in ENGINES),
    re.MULTILINE,
)

LONGEST_LINE_BYTES = 2**16
"""Far longer than a name with all its labels."""


@dataclass(frozen=True, slots=True)
class Series:
    """The name of a sample, and its labels as JSON with sorted keys."""

    name: str
    labels: str


class PageReader:
    """A reader of one server's pages.

    Args:
        max_series: largest number of series of one server.
        hide: replaces secrets in names and labels, which a server may echo.

    Attributes:
        series: all series seen so far, in the order of their first appearance.
        labels: the labels of each.
    """

    def __init__(self, max_series: int = MAX_SERIES, hide: Callable[[str], str] = str) -> None:
        self.series: list[Series] = []
        self.labels: list[dict[str, str]] = []
        self._max_series = max_series
        self._hide = hide
        self._known: dict[Series, int] = {}
        self._of_line: dict[bytes, int] = {}
        self._only_changes: list[bool] = []
        self._texts: list[bytes] = []

    def read(self, page: bytes) -> tuple[list[int], list[float]]:
        """Return the engine's samples of a page, in its order. A line that cannot be read is left out.

        Returns:
            Positions in `series`, and values. Samples that are logged on change (`contracts.server_metrics`) are
            included if they changed since the page before.

        Raises:
            ValueError: no line of the engine can be read, though there are some.
            TooManySeriesError: the server has more series than are read.
        """
        numbers: list[int] = []
        values: list[float] = []
        of_line, texts, only_changes = self._of_line, self._texts, self._only_changes
        broken: str | None = None
        seen = False
        for match in _LINES.finditer(page):
            line, text = match.groups()
            number = of_line.get(line)
            try:
                if number is None:
                    number, value = self._learn(line, text)
                elif only_changes[number] and texts[number] == text:
                    seen = True
                    continue
                else:
                    value = float(text)
            except _UnreadableLineError as error:
                broken = broken or str(error)
                continue
            except ValueError:
                broken = broken or f"the value {_shown(text)} of {self.series[number or 0].name} is no number"
                continue
            texts[number] = text
            if len(numbers) >= self._max_series:  # known ones, again and again
                raise TooManySeriesError(f"/metrics has more than {self._max_series:,} lines of the engine")
            numbers.append(number)
            values.append(value)
        if broken and not numbers and not seen:
            raise ValueError(f"no Prometheus text: {broken}")
        return numbers, values

    def _learn(self, line: bytes, text: bytes) -> tuple[int, float]:
        """Return the number of a new line, and its value.

        Raises:
            _UnreadableLineError: it is no Prometheus text.
            TooManySeriesError: as `read`.
        """
        if len(line) > LONGEST_LINE_BYTES:
            raise _UnreadableLineError(f"a line has {len(line):,} bytes")
        try:
            (family,) = text_string_to_metric_families((line + b" " + text + b"\n").decode())
            (sample,) = family.samples
            value = float(sample.value)
        except Exception as error:  # the library raises whatever a strange line leads to
            raise _UnreadableLineError(_shown(line + b" " + text)) from error
        labels = {self._hide(key): self._hide(text) for key, text in sample.labels.items()}
        series = Series(self._hide(sample.name), json.dumps(labels, sort_keys=True))
        number = self._known.get(series)
        if number is None:
            if len(self.series) >= self._max_series:
                raise TooManySeriesError(
                    f"/metrics has more than {self._max_series:,} series of the engine (client.max_series)"
                )
            number = self._known[series] = len(self.series)
            self.series.append(series)
            self.labels.append(labels)
            self._only_changes.append(series.name.endswith(ON_CHANGE))
            self._texts.append(b"")
        if sample.timestamp is None and len(self._of_line) < 2 * self._max_series:
            # With a time behind the value, what precedes the last space is another text on each page.
            self._of_line[line] = number
        return number, value


class TooManySeriesError(Exception):
    """A server has more series than are read."""


class _UnreadableLineError(Exception):
    """A line of a page is no Prometheus text; the message shows it."""


def _shown(text: bytes) -> str:
    """Return the beginning of a foreign text, printable."""
    return ascii(text[:100].decode(errors="replace"))


IDLE_WITHIN_S = 2.0
IDLE_PERIOD_S = 0.02


class MetricsPoller:
    """Scrapes at a fixed interval of the monotonic clock until it is stopped; failures of the server do not end it.

    A scrape's time is its middle, so the server's values belong to it within half the scrape's duration.

    Args:
        base_url: of the server, without a path.
        interval_s: from scrape to scrape, on a fixed grid; a slow scrape skips its successors.
        log: the file to make, see `MetricsLog`; None keeps only the newest values.
        access: API key and certificates.

    Attributes:
        scrapes: number of scrapes.
        errors: number of scrapes that failed.
        last_error: message of the last failed scrape.
    """

    def __init__(
        self, base_url: str, interval_s: float = 1.0, log: Path | None = None, access: Access | None = None
    ) -> None:
        self._pages = ServerPages(base_url, access)
        self.interval_s = interval_s
        self.scrapes = 0
        self.errors = 0
        self.last_error: str | None = None
        self._reader = PageReader(self._pages.access.max_series, self._pages.hide)
        self._log = MetricsLog(log) if log is not None else None
        self._newest: dict[int, float] = {}
        # One at a time, so that rows are in order of time.
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to poll in the running event loop; the first scrape comes at once."""
        self._task = asyncio.create_task(self._poll(), name="metrics poller")

    async def stop(self) -> None:
        """Scrape once more, so that the counters' last values are kept, end the task, and close the log."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            await self.scrape_now()
        await self._pages.close()
        if self._log is not None:
            self._log.close()

    async def scrape_now(self) -> bool:
        """Scrape once, out of turn; return whether it succeeded."""
        async with self._lock:
            return await self._scrape()

    async def scrape_idle(self, within_s: float = IDLE_WITHIN_S) -> bool:
        """Scrape until no request runs or waits, at most for `within_s`; return whether the server is idle then.

        Right after requests were cut off it still works on them for a step or two. With nothing in flight before and
        after a cell, the rise of the counters between two such scrapes is exactly that of the cell.
        """
        deadline_s = time.monotonic() + within_s
        while True:
            if not await self.scrape_now() or not self.requests():
                return self.requests() == 0
            if time.monotonic() >= deadline_s:
                return False
            await asyncio.sleep(IDLE_PERIOD_S)

    def newest(self, quantity: str) -> float | None:
        """Return a quantity of the engine's table (`contracts.engine_metrics`) at the last scrape, over all models.

        None if the server does not report it.
        """
        series, labels = self._reader.series, self._reader.labels
        name = engine_of(item.name for item in series).full(quantity)
        values = {
            number: value
            for number, value in self._newest.items()
            if series[number].name == name and math.isfinite(value)
        }
        if not values:
            return None
        total = 0.0
        for model in {labels[number].get(MODEL) for number in values}:
            own = [number for number in values if labels[number].get(MODEL) == model]
            grouping = group_series([labels[number] for number in own])
            # What cannot be grouped is added up: it is zero only if nothing is done.
            groups = grouping.groups if not grouping.problem else tuple((place,) for place in range(len(own)))
            total += sum(max(values[own[place]] for place in group) for group in groups)
        return total

    def requests(self) -> float | None:
        """Return the requests that run or wait at the last scrape; None if the server does not report them."""
        counts = [count for count in (self.newest("running"), self.newest("waiting")) if count is not None]
        return sum(counts) if counts else None

    async def _poll(self) -> None:
        due = time.monotonic()
        while True:
            await self.scrape_now()
            # A slow scrape skips its successors instead of crowding them.
            missed = max(0, int((time.monotonic() - due) / self.interval_s))
            due += (missed + 1) * self.interval_s
            await asyncio.sleep(due - time.monotonic())

    async def _scrape(self) -> bool:
        self.scrapes += 1
        began_ns = time.monotonic_ns()
        try:
            page = await self._pages.good("/metrics")
            timestamp_ns = (began_ns + time.monotonic_ns()) // 2
            numbers, values = self._reader.read(page)
        except (PageError, TooManySeriesError) as error:
            self.errors += 1
            self.last_error = str(error)
            return False
        except ValueError as error:
            self.errors += 1
            self.last_error = self._pages.shown(str(error))
            return False
        self._newest.update(zip(numbers, values, strict=True))
        if self._log is not None:
            self._log.append(timestamp_ns, self._reader.series, numbers, values)
        return True


_WORDS = pa.dictionary(pa.int32(), pa.string())
_STREAMED = pa.schema(
    [("timestamp_ns", pa.int64()), ("name", _WORDS), ("labels", _WORDS), ("value", pa.float64())],
)


class MetricsLog:
    """A file to which scrapes are appended.

    Args:
        path: the file to make; its folder is made too.
    """

    def __init__(self, path: Path) -> None:
        self._log = ArrowLog(path, _STREAMED, growing_dictionaries=True)
        self._names, self._labels = pa.array([], pa.string()), pa.array([], pa.string())

    def append(
        self, timestamp_ns: int, series: Sequence[Series], numbers: Sequence[int], values: Sequence[float]
    ) -> None:
        """Append one scrape as a batch and hand it to the operating system.

        Args:
            timestamp_ns: its time.
            series: all series so far; only ever added to.
            numbers: positions in `series`.
            values: one for each of `numbers`.
        """
        if len(series) > len(self._names):
            added = series[len(self._names) :]
            # Each series has its own entry, also where it shares a name, so both columns have the same indices.
            self._names = pa.concat_arrays([self._names, pa.array([item.name for item in added], pa.string())])
            self._labels = pa.concat_arrays([self._labels, pa.array([item.labels for item in added], pa.string())])
        indices = pa.array(numbers, pa.int32())
        columns = [
            pa.repeat(pa.scalar(timestamp_ns, pa.int64()), len(numbers)),
            pa.DictionaryArray.from_arrays(indices, self._names),
            pa.DictionaryArray.from_arrays(indices, self._labels),
            pa.array(values, pa.float64()),
        ]
        self._log.append(columns)

    def close(self) -> None:
        """End the stream; a second call does nothing."""
        self._log.close()


def compact_metrics_log(log: Path, target: Path, **metadata: Any) -> LogStats:
    """Make server_metrics.parquet from a log, a row group at a time; `metadata` is for the file's schema.

    Raises:
        RunError: the log is missing, or was cut off before anything was written.
    """
    return compact_logs([log], target, SCHEMA, **metadata)
