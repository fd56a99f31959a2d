"""requests.parquet: one row a request, times in monotonic ns.

`cell` is the window (or `warmup`) that sent the request. Token counts are those of the server's `usage`, null when
it gave none. `first_token_ns` is the first event with content. `status` is `ok`, `failed` or `aborted` (cut off by
the end of the drain); a failed or aborted request keeps what it had received.
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
    ]
)
