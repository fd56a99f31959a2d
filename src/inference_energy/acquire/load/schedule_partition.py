"""A worker's part of the schedule.

Every request belongs to exactly one worker, so that any number of workers together send exactly the schedule. The user
of a closed loop decides which one, else the conversation, else the row in the schedule. No worker draws anything.
"""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inference_energy.acquire.load.http.request import PlannedRequest, prompt_fragment
from inference_energy.acquire.load.loops import CellLoad
from inference_energy.contracts.load_client import Api
from inference_energy.contracts.schedule import PROMPTS, SCHEDULE
from inference_energy.errors import InputError

SCHEDULE_BATCH_ROWS = 4096
PROMPT_BATCH_ROWS = 64


def worker_of(row: int, user: int | None, conversation: int | None, workers: int) -> int:
    """Return the number of the worker that sends the request in the schedule's row `row`."""
    if user is not None:
        return user % workers
    return (row if conversation is None else conversation) % workers


def check_plan(schedule: Path, prompts: Path) -> None:
    """Check the files' columns without reading their rows.

    Raises:
        InputError: a file is missing or is no such file.
    """
    for path, schema in ((schedule, SCHEDULE), (prompts, PROMPTS)):
        _open(path, schema).close()


class SchedulePartition:
    """The requests that one worker sends.

    Args:
        schedule, prompts: files of the plan.
        apis: the API of each cell; cells not named here are left out.
        worker: number of this process.
        workers: number of processes.

    Attributes:
        cells: by name.
        first_id: the first request id that the schedule does not use.

    Raises:
        InputError: a file is missing or is no such file, or a prompt is missing or does not fit the API.
    """

    def __init__(self, schedule: Path, prompts: Path, apis: Mapping[str, Api], worker: int, workers: int) -> None:
        self.cells: dict[str, CellLoad] = {name: CellLoad() for name in apis}
        self.first_id = 0
        conversations: dict[tuple[str, int], list[PlannedRequest]] = {}
        requests: list[PlannedRequest] = []
        for number, row in enumerate(_schedule(schedule)):
            self.first_id = max(self.first_id, row["request_id"] + 1)
            if row["cell"] in apis and worker_of(number, row["user"], row["conversation"], workers) == worker:
                requests.append(PlannedRequest(**row, prompt=b""))
                self._add(requests[-1], conversations)
        _fill_in_prompts(requests, prompts, apis)
        for load in self.cells.values():
            load.arrivals.sort(key=lambda turns: turns[0].arrival_ns or 0)

    def _add(self, request: PlannedRequest, conversations: dict[tuple[str, int], list[PlannedRequest]]) -> None:
        """Append a request to its conversation, or to the requests of its user, or to the arrivals."""
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


def _fill_in_prompts(requests: Sequence[PlannedRequest], prompts: Path, apis: Mapping[str, Api]) -> None:
    """Give requests their prompts, as JSON: bytes, since a list of numbers takes ten times the memory."""
    by_prompt: dict[int, list[PlannedRequest]] = {}
    for request in requests:
        by_prompt.setdefault(request.prompt_id, []).append(request)
    for row in _prompts(prompts, by_prompt):
        messages = None if row["messages"] is None else json.loads(row["messages"])
        fragments: dict[Api, bytes] = {}
        for request in by_prompt.pop(row["prompt_id"], ()):
            api = apis[request.cell]
            if api not in fragments:
                fragments[api] = prompt_fragment(api, token_ids=row["token_ids"], text=row["text"], messages=messages)
            request.prompt = fragments[api]
    if by_prompt:
        raise InputError(f"{prompts}: lacks prompt {min(by_prompt)}, which the schedule asks for")


def _schedule(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a schedule, without the columns that the client does not need."""
    for batch in _batches(path, SCHEDULE, SCHEDULE_BATCH_ROWS):
        for row in batch.drop_columns(["prompt_tokens"]).to_pylist():
            row["salt"] = bool(row["salt"])
            yield row


def _prompts(path: Path, prompt_ids: Container[int]) -> Iterator[dict[str, Any]]:
    """Yield the rows of these prompts one at a time: many long ones would be large as Python's numbers."""
    for batch in _batches(path, PROMPTS, PROMPT_BATCH_ROWS):
        for index, prompt_id in enumerate(batch["prompt_id"].to_pylist()):
            if prompt_id in prompt_ids:
                yield batch.slice(index, 1).to_pylist()[0]


def _batches(path: Path, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the columns of `schema` of a file in batches of `rows` rows."""
    with _open(path, schema) as file:
        yield from file.iter_batches(rows, columns=schema.names, use_threads=False)


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
