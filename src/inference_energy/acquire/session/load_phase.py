"""The load of a session: its cells sent one after another by a pool of processes of their own."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.acquire.load.request_log import merge_request_logs
from inference_energy.acquire.load.schedule_partition import check_plan
from inference_energy.acquire.load.settings import CellSettings, LoadSpec, api_key_env
from inference_energy.acquire.load.worker_messages import CellTimes
from inference_energy.acquire.load.worker_pool import WorkerPool
from inference_energy.acquire.session.settings import CellSpec, SessionSpec
from inference_energy.contracts.arrow_log import LogStats
from inference_energy.contracts.documents.session import LoadClient
from inference_energy.errors import RunError

LONGEST_TTFTS = 3.0
"""A server is silent when requests have waited in vain for this many times the longest time to a first token."""


class SessionLoad:
    """Sends the cells of a session, inside a block of `workers`.

    Args:
        spec: the session.
        prompts: prompts.parquet.
        schedule: schedule.parquet.
        logs: folder for the processes' logs, which stay also after a failure.

    Attributes:
        cost: what the processes took; None before the end of `workers`.

    Raises:
        InputError: a plan file is missing or is no such file, or the environment variable of the API key is not set.
    """

    def __init__(self, spec: SessionSpec, prompts: Path, schedule: Path, logs: Path) -> None:
        check_plan(schedule, prompts)
        self._spec = spec
        self._plan = (prompts, schedule)
        self._logs = logs
        self._api_key_env = api_key_env(spec.client.api_key_env, attached=spec.mode == "attach")
        self._pool: WorkerPool | None = None
        self._sending = False
        self._past_tokens = 0
        self.cost: LoadClient | None = None

    def counts(self) -> LiveCounts | None:
        """Return the counts of the current cell; None between cells."""
        return self._pool.counts if self._pool and self._sending else None

    def tokens(self) -> int:
        """Return the tokens of all answers that have ended so far."""
        return self._past_tokens + (self._pool.counts.completion_tokens if self._pool else 0)

    @asynccontextmanager
    async def workers(self, endpoint: str, model: str) -> AsyncIterator[None]:
        """Start the processes that send; at the end of the block they are gone.

        Raises:
            InputError: the plan or the settings cannot be used.
            RunError: a process did not come up, or died.
        """
        prompts, schedule = self._plan
        spec = LoadSpec.from_config(
            self._spec.client,
            self._api_key_env,
            endpoints=(endpoint,),
            model=model,
            cells={cell.name: CellSettings(cell.duration_s, cell.settings) for cell in self._spec.cells},
            prompts=prompts,
            schedule=schedule,
            folder=self._logs,
        )
        async with WorkerPool(spec) as self._pool:
            yield
            self.cost = await self._pool.finish()

    async def run_cell(self, cell: CellSpec) -> CellTimes:
        """Send one cell's requests and drain.

        Raises:
            RunError: not one request succeeded, and the message holds the first failure; or a process died.
        """
        assert self._pool is not None
        self._past_tokens = self.tokens()
        self._sending = True
        try:
            times = await self._pool.run_cell(cell.name)
        finally:
            self._sending = False
        counts = self._pool.counts
        if counts.failed and not counts.ok:
            raise RunError(f"{cell.name}: all {counts.ended} requests failed; the first: {counts.first_error}")
        return times

    def silence_s(self, times: CellTimes) -> float:
        """Return for how long, until the end of a cell's drain, requests waited and no token came [s]; 0: not at all.

        A silence that is short beside the time to a first token in this cell is none.
        """
        counts = self._pool.counts if self._pool else LiveCounts()
        if counts.silent_since_ns is None or not counts.aborted:
            return 0.0
        silence_s = (times.drained_ns - counts.silent_since_ns) / 1e9
        return silence_s if silence_s > LONGEST_TTFTS * (counts.ttft.quantile_s(1.0) or 0.0) else 0.0

    def write(self, output: Path, anchor: Mapping[str, int]) -> LogStats:
        """Write requests.parquet, and chunks.parquet and answers.parquet where they were requested.

        Raises:
            RunError: a log cannot be read, or lacks requests that were sent.
        """
        counted = self.cost.logged_requests if self.cost else {}
        return merge_request_logs(self._logs, output / "requests.parquet", counted, clock_anchor=dict(anchor))
