"""chunks.parquet (optional): one row an arrival of content, times in monotonic ns.

An arrival is what one read of the socket brought. `events` counts the complete events with content in it: a busy
server or network brings several at once, so an interval between arrivals is not always one between tokens.
`completion_tokens` is the running count where the server says it in each event (`continuous_usage_stats`), else null.
Rows are in order of time within a worker's requests, one worker after the other.
"""

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("request_id", pa.int64()),
        ("cell", pa.string()),
        ("timestamp_ns", pa.int64()),
        ("events", pa.int64()),
        ("completion_tokens", pa.int64()),
    ]
)
