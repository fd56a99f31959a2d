"""schedule.parquet and prompts.parquet: what will be asked and when, drawn before anything runs.

In the schedule `arrival_ns` is the offset from its cell's start; null means closed loop, where a user sends the next
request when the last one has ended. `prompt_tokens` is the length asked for; null when only the server can count it.
In the prompts exactly one of `token_ids` and `text` is set.
"""

import pyarrow as pa

SCHEDULE = pa.schema(
    [
        ("request_id", pa.int64()),
        ("cell", pa.string()),
        ("arrival_ns", pa.int64()),
        ("prompt_id", pa.int64()),
        ("prompt_tokens", pa.int64()),
        ("max_tokens", pa.int64()),
    ]
)

PROMPTS = pa.schema(
    [
        ("prompt_id", pa.int64()),
        ("workload", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("text", pa.string()),
    ]
)
