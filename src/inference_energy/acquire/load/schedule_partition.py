"""A worker's share of the schedule.

Every request belongs to exactly one worker, so that together they send exactly the schedule however many they are: in
a closed loop by its user, else by its conversation, else by its place in the schedule. No worker draws anything.
"""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from inference_energy.acquire.load.http.request import PlannedRequest, prompt_fragment
from inference_energy.acquire.load.loops import CellLoad
from inference_energy.contracts.schedule import PROMPTS, SCHEDULE
from inference_energy.errors import InputError

Api = Literal["completions", "chat"]
ROWS_AT_A_TIME = 4096
PROMPTS_AT_A_TIME = 64


def worker_of(row: int, user: int | None, conversation: int | None, workers: int) -> int:
    """Which worker sends the request in the schedule's row `row`."""
    if user is not None:
        return user % workers
    return (row if conversation is None else conversation) % workers


def check_plan(schedule: Path, prompts: Path) -> None:
    """Look at the files' columns, not at their rows.

    Raises:
        InputError: a file is missing or of another kind.
    """
    for path, schema in ((schedule, SCHEDULE), (prompts, PROMPTS)):
        _open(path, schema).close()


class SchedulePartition:
    """What one worker sends.

    Args:
        schedule, prompts: files of the plan.
        apis: which API each cell asks; cells not named here are left out.
        worker, workers: which process this is, of how many.

    Attributes:
        cells: by name.
        first_id: the first request id that the schedule does not use.

    Raises:
        InputError: a file is missing or of another kind, or a prompt is missing or does not fit the API.
    """

    def __init__(self, schedule: Path, prompts: Path, apis: Mapping[str, Api], worker: int, workers: int) -> None:
        self.cells: dict[str, CellLoad] = {name: CellLoad() for name in apis}
        self.first_id = 0
        conversations: dict[tuple[str, int], list[PlannedRequest]] = {}
        mine: list[PlannedRequest] = []
        for number, row in enumerate(_schedule(schedule)):
            self.first_id = max(self.first_id, row["request_id"] + 1)
            if row["cell"] in apis and worker_of(number, row["user"], row["conversation"], workers) == worker:
                mine.append(PlannedRequest(**row, prompt=b""))
                self._place(mine[-1], conversations)
        _fill(mine, prompts, apis)
        for load in self.cells.values():
            load.arrivals.sort(key=lambda turns: turns[0].arrival_ns or 0)

    def _place(self, request: PlannedRequest, conversations: dict[tuple[str, int], list[PlannedRequest]]) -> None:
        """Put a request behind those of its conversation, or at the end of its user's or of the arrivals."""
        load = self.cells[request.cell]
        if request.conversation is not None:
            key = (request.cell, request.conversation)
            if key in conversations:
                conversations[key].append(request)
                return
        turns = [request]
        if request.conversation is not None:
            conversations[key] = turns
        if request.user is None:
            load.arrivals.append(turns)
        else:
            load.users.setdefault(request.user, []).append(turns)


def _fill(requests: Sequence[PlannedRequest], prompts: Path, apis: Mapping[str, Api]) -> None:
    """Give requests their prompts, as JSON: bytes, since a list of numbers takes ten times the memory."""
    wanted: dict[int, list[PlannedRequest]] = {}
    for request in requests:
        wanted.setdefault(request.prompt_id, []).append(request)
    for row in _prompts(prompts, wanted):
        messages = None if row["messages"] is None else json.loads(row["messages"])
        made: dict[Api, bytes] = {}
        for request in wanted.pop(row["prompt_id"], ()):
            api = apis[request.cell]
            if api not in made:
                made[api] = prompt_fragment(api, token_ids=row["token_ids"], text=row["text"], messages=messages)
            request.prompt = made[api]
    if wanted:
        raise InputError(f"{prompts}: lacks prompt {min(wanted)}, which the schedule asks for")


def _schedule(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a schedule as far as they concern the client."""
    for batch in _batches(path, SCHEDULE, ROWS_AT_A_TIME):
        for row in batch.drop_columns(["prompt_tokens"]).to_pylist():
            row["salt"] = bool(row["salt"])
            yield row


def _prompts(path: Path, wanted: Container[int]) -> Iterator[dict[str, Any]]:
    """The rows of the wanted prompts, one at a time: many long ones would be large as Python's numbers."""
    for batch in _batches(path, PROMPTS, PROMPTS_AT_A_TIME):
        for place, prompt_id in enumerate(batch["prompt_id"].to_pylist()):
            if prompt_id in wanted:
                yield batch.slice(place, 1).to_pylist()[0]


def _batches(path: Path, schema: pa.Schema, at_a_time: int) -> Iterator[pa.RecordBatch]:
    """The columns of `schema` of a file, so many rows at a time."""
    with _open(path, schema) as file:
        yield from file.iter_batches(at_a_time, columns=schema.names, use_threads=False)


def _open(path: Path, schema: pa.Schema) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {error}") from error
    missing = [name for name in schema.names if name not in file.schema_arrow.names]
    if missing:
        raise InputError(f"{path}: lacks the column(s) {', '.join(missing)}; was it written by another tool?")
    return file
