"""requests.parquet, chunks.parquet and answers.parquet: what became of each request.

A request has one of the statuses

- `ok`;
- `failed`: `error` says why, `status_code` holds the server's answer, if it answered; also where the server ended the
  answer with a finish reason such as `abort` or `error`;
- `aborted`: cut off at the end of the drain;
- `skipped`: a later turn of a conversation that was never sent, because an earlier turn had failed or the window had
  ended. Its `scheduled_ns` is when that was decided, or when it would have been due if that is later; it has no
  `sent_ns` and no `end_ns`.

A failed or aborted request keeps the tokens that it had received.

A chunk is what one read of the socket brought. A busy server or network brings several events at once, so the time
between chunks is not always one between tokens. Chunks are in order of time within a worker's requests, one worker
after the other.

Columns of requests.parquet:
    request_id: number of the request, unique within the session.
    cell: the window that sent it, or `warmup`.
    worker: load process that sent it, from 0.
    endpoint: base URL.
    prompt_id: row of prompts.parquet; several requests may share one.
    turn: its turn in a conversation, from 0; null without one.
    scheduled_ns: when it was due; in a closed loop, when its user was free, which is no schedule.
    sent_ns: when the counted attempt was sent; null if none was.
    first_token_ns: first event with content.
    last_token_ns: last event with content, or the one with the finish reason.
    end_ns: when the response had ended, or failed.
    prompt_tokens: prompt tokens of the server's `usage`; null, as the other counts, where it gives none that can be.
    cached_tokens: those of the prompt tokens that came from the prefix cache; null where the server does not say.
    completion_tokens: completion tokens of the server's `usage`.
    finish_reason: `length`, `stop`, ...
    status: `ok`, `failed`, `aborted` or `skipped`.
    error: why it failed.
    conversation: its conversation; null without one.
    user: user of a closed loop that sent it; null in an open loop.
    attempts: 2 where a kept-alive connection was closed by the server before the first byte of the answer, so that the
        request was sent again on a new one; else 1.
    status_code: HTTP status of the answer.

Columns of chunks.parquet:
    request_id, cell: the request, as in requests.parquet.
    timestamp_ns: when the chunk came.
    events: complete events with content in it.
    completion_tokens: running count where the server states it in each event (`continuous_usage_stats`); else null.

Columns of answers.parquet:
    request_id, cell: the request, as in requests.parquet.
    text: text of the answer, also of one that failed or was cut off.
"""

from dataclasses import dataclass, fields
from typing import Literal

import pyarrow as pa

Status = Literal["ok", "failed", "aborted", "skipped"]


@dataclass(slots=True)
class RequestRecord:
    """One row of requests.parquet, as the load client fills it in: its fields are the columns, in their order.

    Attributes:
        sent_ns: when the counted attempt was handed to the network: on an open connection the bytes are written at
            once, otherwise once it is connected. Waiting for a free connection, where their number is limited, comes
            before it.
        end_ns: when the answer was complete, had failed, or was cut off.
        attempts: 2 if the server had closed a reused connection before a byte of the answer came, 0 if none began.
    """

    request_id: int
    cell: str
    worker: int
    endpoint: str
    prompt_id: int
    turn: int | None
    scheduled_ns: int
    sent_ns: int | None = None
    first_token_ns: int | None = None
    last_token_ns: int | None = None
    end_ns: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    status: Status = "aborted"
    error: str | None = None
    conversation: int | None = None
    user: int | None = None
    attempts: int = 0
    status_code: int | None = None


_ARROW_TYPES: dict[object, pa.DataType] = {
    int: pa.int64(),
    int | None: pa.int64(),
    str: pa.string(),
    str | None: pa.string(),
    Status: pa.string(),
}

SCHEMA = pa.schema([(field.name, _ARROW_TYPES[field.type]) for field in fields(RequestRecord)])


CHUNKS_SCHEMA = pa.schema(
    [
        ("request_id", pa.int64()),
        ("cell", pa.string()),
        ("timestamp_ns", pa.int64()),
        ("events", pa.int64()),
        ("completion_tokens", pa.int64()),
    ]
)


ANSWERS_SCHEMA = pa.schema(
    [
        ("request_id", pa.int64()),
        ("cell", pa.string()),
        ("text", pa.string()),
    ]
)
