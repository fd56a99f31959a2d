"""schedule.parquet and prompts.parquet: what will be asked and when, drawn before anything runs.

Schedule: one row a request, all cells, in the order they are due.

- `arrival_ns`: offset from its cell's start; null in a closed loop and for the later turns of a conversation.
- `user`: closed loop: which user sends it.
- `conversation`, `turn`: which conversation, and which of its turns, from 0.
- `think_ns`: wait this long after the previous request of the same user or conversation has ended; for the first
  request of a user in a closed loop, this long after the cell's start. A user whose rows are used up begins again with
  them; its first request then waits as long as that of its second conversation, or single request, if it has one.
- `prompt_tokens`: the length asked for; null where only the server can count it.
- `salt`: send a cache salt: the same content was sent before in the session, and the workload wants no prefix reuse.

Prompts: exactly one of `token_ids`, `text` and `messages` is set. `messages` is a JSON array of objects with `role` and
`content`. `answer` is the right answer of a graded prompt, `group` which shared prefix it begins with; both may be
null.
"""

import pyarrow as pa

SCHEDULE = pa.schema(
    [
        ("request_id", pa.int64()),
        ("cell", pa.string()),
        ("arrival_ns", pa.int64()),
        ("user", pa.int64()),
        ("conversation", pa.int64()),
        ("turn", pa.int64()),
        ("think_ns", pa.int64()),
        ("prompt_id", pa.int64()),
        ("prompt_tokens", pa.int64()),
        ("max_tokens", pa.int64()),
        ("salt", pa.bool_()),
    ]
)

PROMPTS = pa.schema(
    [
        ("prompt_id", pa.int64()),
        ("workload", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("messages", pa.string()),
        ("answer", pa.string()),
        ("group", pa.int64()),
    ]
)
