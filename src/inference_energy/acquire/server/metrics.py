"""The server's own metrics (/metrics, Prometheus text): one scrape, and a poller that keeps them with their times."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import suppress

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

PREFIXES = ("vllm:", "sglang:")
TIMEOUT = aiohttp.ClientTimeout(total=5.0)

Sample = tuple[str, str, float]  # name, labels as JSON, value
Row = tuple[int, str, str, float]  # timestamp_ns, name, labels as JSON, value


def parse_metrics(text: str) -> list[Sample]:
    """The engine's samples in a Prometheus text, in its order.

    Kept: gauges, counters, and ``_sum`` and ``_count`` of histograms. Dropped: other families, ``_bucket`` and
    ``_created``, and the label ``model_name``. Labels are JSON with sorted keys.
    """
    samples = []
    for family in text_string_to_metric_families("\n".join(_kept_lines(text)) + "\n"):
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key != "model_name"}
            samples.append((sample.name, json.dumps(labels, sort_keys=True), float(sample.value)))
    return samples


def _kept_lines(text: str) -> Iterator[str]:
    """The sample lines to parse. Most of vLLM's page are buckets; parsing them would delay the load client's loop.

    Without their comments the samples are of unknown type, which leaves names and values as they are.
    """
    for line in text.splitlines():
        if line.startswith(PREFIXES) and not line.partition("{")[0].partition(" ")[0].endswith(("_bucket", "_created")):
            yield line


async def scrape(session: aiohttp.ClientSession, base_url: str) -> list[Sample]:
    """GET /metrics and parse it: (name, labels, value) for each sample that ``parse_metrics`` keeps.

    Raises:
        aiohttp.ClientError, OSError: no answer (TimeoutError is an OSError), or not a good one.
        ValueError: a page that is no Prometheus text.
    """
    async with session.get(f"{base_url}/metrics", timeout=TIMEOUT) as response:
        response.raise_for_status()
        return parse_metrics(await response.text())


class MetricsPoller:
    """Scrapes at a fixed interval of the monotonic clock until stopped, and outlives the server's failures.

    Attributes:
        rows: (timestamp_ns, name, labels, value). The time is the middle of the scrape, so the server's values belong
            to it within half the scrape's duration.
        errors: how many scrapes failed; ``last_error`` says why the last of them did.
    """

    def __init__(self, base_url: str, interval_s: float = 1.0) -> None:
        self.base_url = base_url
        self.interval_s = interval_s
        self.rows: list[Row] = []
        self.errors = 0
        self.last_error: str | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to poll in the running event loop; the first scrape comes at once."""
        self._task = asyncio.create_task(self._poll(), name="metrics poller")

    async def stop(self) -> list[Row]:
        """Scrape once more, so that the counters' last values are kept, end the task, and return the rows."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            async with aiohttp.ClientSession() as session:
                await self._scrape_once(session)
        return self.rows

    async def _poll(self) -> None:
        async with aiohttp.ClientSession() as session:
            due = time.monotonic()
            while True:
                await self._scrape_once(session)
                # A slow scrape skips its successors instead of crowding them.
                missed = max(0, int((time.monotonic() - due) / self.interval_s))
                due += (missed + 1) * self.interval_s
                await asyncio.sleep(due - time.monotonic())

    async def _scrape_once(self, session: aiohttp.ClientSession) -> None:
        began_ns = time.monotonic_ns()
        try:
            samples = await scrape(session, self.base_url)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self.errors += 1
            self.last_error = str(error) or type(error).__name__
            return
        timestamp_ns = (began_ns + time.monotonic_ns()) // 2
        self.rows.extend((timestamp_ns, *sample) for sample in samples)
