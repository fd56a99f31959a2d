"""The load of a session: its cells sent one after another by a team of processes of their own."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from inference_energy.acquire.load.api_key import api_key_env
from inference_energy.acquire.load.live import LiveCounts
from inference_energy.acquire.load.log.merge import Merged, merge
from inference_energy.acquire.load.loops.cell import CellTimes
from inference_energy.acquire.load.worker.share import check_plan
from inference_energy.acquire.load.worker.spec import CellSettings, LoadSpec
from inference_energy.acquire.load.worker.team import LoadTeam
from inference_energy.acquire.session.spec import CellSpec, SessionSpec
from inference_energy.errors import RunError


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
        self._team: LoadTeam | None = None
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
        async with LoadTeam(spec) as self._team:
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

    def write(self, output: Path, anchor: Mapping[str, int]) -> Merged:
        """Write requests.parquet, and chunks.parquet and answers.parquet where they were asked for."""
        return merge(self._logs, output / "requests.parquet", clock_anchor=dict(anchor))
