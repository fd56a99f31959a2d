"""requests.parquet: one row a request, times in monotonic ns.

requests.parquet: one row a request, times in monotonic ns.

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

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("request_id", pa.int64()),
        ("cell", pa.string()),
        ("worker", pa.int64()),
        ("endpoint", pa.string()),
        ("prompt_id", pa.int64()),
        ("turn", pa.int64()),
        ("scheduled_ns", pa.int64()),
        ("sent_ns", pa.int64()),
        ("first_token_ns", pa.int64()),
        ("last_token_ns", pa.int64()),
        ("end_ns", pa.int64()),
        ("prompt_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("finish_reason", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("conversation", pa.int64()),
        ("user", pa.int64()),
        ("attempts", pa.int64()),
        ("status_code", pa.int64()),
    ]
)


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
