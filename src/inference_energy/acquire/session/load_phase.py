"""What a session that failed leaves: the logs up to then as the files that a session writes, beside its logs.

What a session that failed leaves: the logs up to then as the files that a session writes, beside its logs.

They are for people and take no part in the pipeline: the folder of results stays as it was.

The load of a session: its cells sent one after another by a team of processes of their own.
"""

import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.acquire.load.loops import CellTimes
from inference_energy.acquire.load.request_log import merge_request_logs
from inference_energy.acquire.load.schedule_partition import check_plan
from inference_energy.acquire.load.settings import CellSettings, LoadSpec, api_key_env
from inference_energy.acquire.load.worker_pool import WorkerPool
from inference_energy.acquire.power import power_log
from inference_energy.acquire.server import metrics
from inference_energy.acquire.session.settings import CellSpec, SessionSpec
from inference_energy.contracts import phases as phases_contract
from inference_energy.contracts.arrow_log import LogStats
from inference_energy.contracts.io import write_json, write_table
from inference_energy.errors import RunError

FOLDER = "partial"


def clear_partial(logs: Path) -> None:
    """Remove what an earlier run left."""
    shutil.rmtree(logs / FOLDER, ignore_errors=True)


def keep_partial(
    logs: Path, phases: Sequence[Mapping[str, Any]], under_way: str, anchor: Mapping[str, int], error: RunError
) -> None:
    """Write what is readable of the logs, and add to the error where it is and what it holds.

    Args:
        logs: the session's folder of logs, holds power.arrows, server_metrics.arrows and load/.
        phases: those that were over.
        under_way: the stage in which it failed.
        anchor: the session's clock anchor.
        error: why it failed.
    """
    folder = logs / FOLDER
    facts = {"clock_anchor": dict(anchor), "failure": str(error), "under_way": under_way}
    write_json(folder / "session.json", facts)
    write_table(
        folder / "phases.parquet", [dict(phase) for phase in phases], phases_contract.SCHEMA, clock_anchor=anchor
    )
    files: dict[str, Callable[[Path], object]] = {
        "requests": lambda target: merge_request_logs(logs / "load", target, clock_anchor=dict(anchor)),
        "power": lambda target: power_log.compact_power_log(logs / "power.arrows", target),
        "server_metrics": lambda target: metrics.compact_metrics_log(
            logs / "server_metrics.arrows", target, clock_anchor=dict(anchor)
        ),
    }
    for name, make in files.items():
        # The error is the one to see; a log that cannot be read stays as it is.
        with suppress(RunError, OSError, pa.ArrowInvalid):
            make(folder / f"{name}.parquet")
    error.add_note(f"What was measured until then is kept in {folder}: {_held(folder)}. It goes into no result.")


def _held(folder: Path) -> str:
    requests, power = folder / "requests.parquet", folder / "power.parquet"
    said = []
    if requests.is_file():
        counts = pc.value_counts(pq.read_table(requests, columns=["status"])["status"]).to_pylist()
        ended = ", ".join(f"{one['counts']} {one['values']}" for one in counts)
        said.append(f"requests ({ended})" if ended else "no request")
    if power.is_file():
        times = pc.min_max(pq.read_table(power, columns=["timestamp_ns"])["timestamp_ns"]).as_py()
        if times["max"] is not None:
            said.append(f"power over {(times['max'] - times['min']) / 1e9:.0f} s")
    return " and ".join(said) or "only logs"


class SessionLoad:
    """Sends the cells of a session, inside a block of `team`.

    Args:
        spec: the session.
        prompts: prompts.parquet.
        schedule: schedule.parquet.
        logs: folder for the processes' logs, which stay whatever happens.

    Attributes:
        facts: what the processes took; None before the end of `team`.

    Raises:
        InputError: a plan file is missing or of another kind, or the environment variable of the API key is not set.
    """

    def __init__(self, spec: SessionSpec, prompts: Path, schedule: Path, logs: Path) -> None:
        check_plan(schedule, prompts)
        self._spec = spec
        self._plan = (prompts, schedule)
        self._logs = logs
        self._api_key_env = api_key_env(spec.client.get("api_key_env"), attached=spec.mode == "attach")
        self._team: WorkerPool | None = None
        self._sending = False
        self._past_tokens = 0
        self.facts: Mapping[str, Any] | None = None

    def live(self) -> LiveCounts | None:
        """The counts of the cell under way; None while there is none."""
        return self._team.live if self._team and self._sending else None

    def tokens(self) -> int:
        """Tokens of the answers that have ended so far."""
        return self._past_tokens + (self._team.live.completion_tokens if self._team else 0)

    @asynccontextmanager
    async def team(self, endpoint: str, model: str) -> AsyncIterator[None]:
        """The processes that send: started, and at the block's end gone.

        Raises:
            InputError: the plan or the settings cannot be used.
            RunError: a process did not come up, or died.
        """
        client = {name: value for name, value in self._spec.client.items() if name != "api_key_env"}
        prompts, schedule = self._plan
        spec = LoadSpec(
            endpoints=(endpoint,),
            model=model,
            cells={cell.name: CellSettings(cell.duration_s, cell.settings) for cell in self._spec.cells},
            prompts=str(prompts.absolute()),
            schedule=str(schedule.absolute()),
            folder=str(self._logs.absolute()),
            api_key_env=self._api_key_env,
            **client,
        )
        async with WorkerPool(spec) as self._team:
            yield
            self.facts = await self._team.finish()

    async def run_cell(self, cell: CellSpec) -> CellTimes:
        """Send one cell's requests and drain.

        Raises:
            RunError: not one request succeeded, and the message holds the first failure; or a process died.
        """
        assert self._team is not None
        self._past_tokens = self.tokens()
        self._sending = True
        try:
            times = await self._team.run_cell(cell.name)
        finally:
            self._sending = False
        counts = self._team.live
        if counts.failed and not counts.ok:
            raise RunError(f"{cell.name}: all {counts.ended} requests failed; the first: {counts.first_error}")
        return times

    def write(self, output: Path, anchor: Mapping[str, int]) -> LogStats:
        """Write requests.parquet, and chunks.parquet and answers.parquet where they were asked for."""
        return merge_request_logs(self._logs, output / "requests.parquet", clock_anchor=dict(anchor))
