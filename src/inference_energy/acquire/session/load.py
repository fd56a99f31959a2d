"""The load of a session: plan files into requests, cells run one after another."""

import itertools
from pathlib import Path

import pandas as pd

from inference_energy.acquire.load.client import LoadClient
from inference_energy.acquire.load.phase import PhaseTimes, run_phase
from inference_energy.acquire.load.request import PlannedRequest, RequestRecord
from inference_energy.acquire.session.spec import CellSpec, SessionSpec
from inference_energy.contracts.schedule import PROMPTS, SCHEDULE
from inference_energy.contracts.tables import read_table
from inference_energy.errors import RunError


class SessionLoad:
    """Sends the cells of a session.

    Attributes:
        records: what came back, over all cells.
    """

    def __init__(self, spec: SessionSpec, prompts: Path, schedule: Path) -> None:
        """Read the plan.

        Raises:
            InputError: a plan file is missing or of another kind.
        """
        self._spec = spec
        self._requests = _planned(prompts, schedule)
        last = max((request.request_id for requests in self._requests.values() for request in requests), default=-1)
        self._ids = itertools.count(last + 1)
        self.records: list[RequestRecord] = []
        self._client: LoadClient | None = None
        self._past_events = 0
        self._sent_before: set[int] = set()

    def in_flight(self) -> int:
        """Requests under way."""
        return self._client.in_flight if self._client else 0

    def events(self) -> int:
        """Events with content so far: fewer than the tokens, since a busy server sends several in one."""
        return self._past_events + (self._client.events if self._client else 0)

    async def run_cell(self, cell: CellSpec, endpoint: str, model: str) -> PhaseTimes:
        """Send one cell's requests and drain.

        Raises:
            RunError: not one request succeeded; the message holds the first failure.
        """
        client = LoadClient(
            endpoint,
            model,
            self._spec.request_timeout_s,
            ignore_eos=cell.ignore_eos,
            prefix_reuse=cell.prefix_reuse,
            sent_before=self._sent_before,
        )
        self._client = client
        try:
            async with client:
                times = await run_phase(
                    client,
                    cell.name,
                    self._requests.get(cell.name, []),
                    cell.duration_s,
                    self._spec.drain_s,
                    concurrency=cell.concurrency,
                    new_id=lambda: next(self._ids),
                )
        finally:
            self.records += client.records
            self._past_events += client.events
            self._client = None
        failures = [record for record in client.records if record.status == "failed"]
        if failures and not any(record.status == "ok" for record in client.records):
            raise RunError(f"{cell.name}: all {len(client.records)} requests failed; the first: {failures[0].error}")
        return times


def _planned(prompts: Path, schedule: Path) -> dict[str, list[PlannedRequest]]:
    contents: dict[int, str | list[int]] = {
        row["prompt_id"]: row["text"] if row["token_ids"] is None else [int(token) for token in row["token_ids"]]
        for row in read_table(prompts, PROMPTS).to_dict("records")
    }
    planned: dict[str, list[PlannedRequest]] = {}
    for row in read_table(schedule, SCHEDULE).to_dict("records"):
        planned.setdefault(row["cell"], []).append(
            PlannedRequest(
                request_id=row["request_id"],
                prompt_id=row["prompt_id"],
                prompt=contents[row["prompt_id"]],
                max_tokens=row["max_tokens"],
                arrival_ns=None if pd.isna(row["arrival_ns"]) else int(row["arrival_ns"]),
            )
        )
    return planned
