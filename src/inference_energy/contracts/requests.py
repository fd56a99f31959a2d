"""requests.parquet: one row a request, times in monotonic ns; beside it chunks.parquet and answers.parquet.

`cell` is the window (or `warmup`) that sent the request, `worker` the load process that did, `user` the user of a
closed loop, `conversation` and `turn` its place in a conversation; these three are null where there is none. Token
counts are those of the server's `usage`, null when it gave none. `scheduled_ns` is when the request was due, `sent_ns`
when it was sent, `first_token_ns` the first event with content.

`status` is one of

- `ok`;
- `failed`: `error` says why, `status_code` what the server answered, if it answered;
- `aborted`: cut off by the end of the drain;
- `skipped`: a later turn of a conversation that was never sent, since a turn before it had failed, or the cell had
  ended. Its `scheduled_ns` is when that was decided, or when it would have been due if that is later; it has no
  `sent_ns` and no `end_ns`.

A failed or aborted request keeps what it had received. `attempts` is 2 where a kept-alive connection was found closed
by the server before a byte of the answer, so that the request was sent again on a new one; `sent_ns` is that of the
attempt that counts.

chunks.parquet (optional): one row an arrival of content, times in monotonic ns.

An arrival is what one read of the socket brought. `events` counts the complete events with content in it: a busy
server or network brings several at once, so an interval between arrivals is not always one between tokens.
`completion_tokens` is the running count where the server says it in each event (`continuous_usage_stats`), else null.
Rows are in order of time within a worker's requests, one worker after the other.

answers.parquet (optional): the text of each answer, also of one that failed or was cut off.
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
