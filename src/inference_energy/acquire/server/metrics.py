"""The server's own metrics (/metrics, Prometheus text): a poller that logs them with their times."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import aiohttp

from inference_energy.acquire.server.access import Access
from inference_energy.acquire.server.metrics_log import MetricsLog
from inference_energy.acquire.server.metrics_page import PageReader
from inference_energy.contracts.engines import engine_of

TIMEOUT = aiohttp.ClientTimeout(total=5.0)
IDLE_WITHIN_S = 2.0
IDLE_PERIOD_S = 0.02


class MetricsPoller:
    """Scrapes at a fixed interval of the monotonic clock until stopped, and outlives the server's failures.

    A scrape's time is its middle, so the server's values belong to it within half the scrape's duration.

    Args:
        base_url: of the server, without a path.
        interval_s: from scrape to scrape, on a fixed grid; a slow scrape skips its successors.
        log: the file to make, see `metrics_log`; None keeps nothing but the newest values.
        access: what the server wants of whoever asks.

    Attributes:
        scrapes: how many there were; `errors` failed, and `last_error` says why the last of these did.
    """

    def __init__(
        self, base_url: str, interval_s: float = 1.0, log: Path | None = None, access: Access | None = None
    ) -> None:
        self.base_url = base_url
        self._access = access or Access()
        self.interval_s = interval_s
        self.scrapes = 0
        self.errors = 0
        self.last_error: str | None = None
        self._reader = PageReader()
        self._log = MetricsLog(log) if log is not None else None
        self._newest: dict[int, float] = {}
        self._session: aiohttp.ClientSession | None = None
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
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._log is not None:
            self._log.close()

    async def scrape_now(self) -> bool:
        """Scrape once, out of turn; whether it succeeded."""
        async with self._lock:
            return await self._scrape()

    async def scrape_idle(self, within_s: float = IDLE_WITHIN_S) -> bool:
        """Scrape until the server says that no request runs or waits, at most so long; whether it said so.

        Right after requests were cut off it still works on them for a step or two. With nothing in flight before and
        after a cell, the rise of the counters between two such scrapes is all that the cell caused.
        """
        deadline_s = time.monotonic() + within_s
        while True:
            if not await self.scrape_now() or not self.requests():
                return self.requests() == 0
            if time.monotonic() >= deadline_s:
                return False
            await asyncio.sleep(IDLE_PERIOD_S)

    def newest(self, quantity: str) -> float | None:
        """A quantity of the engine's table (`contracts.engines`) at the last scrape, summed over its labels.

        None where the server does not tell it.
        """
        series = self._reader.series
        wanted = engine_of(one.name for one in series).full(quantity)
        found = [value for number, value in self._newest.items() if series[number].name == wanted]
        return sum(found) if found else None

    def requests(self) -> float | None:
        """Requests that run or wait at the last scrape; None where the server does not tell."""
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
            page = await self._page()
            timestamp_ns = (began_ns + time.monotonic_ns()) // 2
            numbers, values = self._reader.read(page)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self.errors += 1
            self.last_error = str(error) or type(error).__name__
            return False
        self._newest.update(zip(numbers, values, strict=True))
        if self._log is not None:
            self._log.append(timestamp_ns, self._reader.series, numbers, values)
        return True

    async def _page(self) -> bytes:
        """GET /metrics; TimeoutError is an OSError."""
        if self._session is None:
            # A connection that the server closed in between is an error of one scrape, so none is kept for long.
            self._session = self._access.session(keepalive_timeout=3.0)
        # Packing the page would take the server and us more time than it saves on the way.
        plain = {"Accept-Encoding": "identity"}
        async with self._session.get(f"{self.base_url}/metrics", timeout=TIMEOUT, headers=plain) as response:
            response.raise_for_status()
            return await response.read()
