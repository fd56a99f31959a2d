"""schedule.parquet and prompts.parquet: what will be asked and when, drawn before anything runs.

The schedule has one row a request of all windows, in the order in which they are due. A closed loop's schedule is its
pool: in a window it may be used in part, or more than once. A user whose rows are used up begins with them again; its
first request then waits as long as that of its second conversation, or single request, if it has one. Repeated requests
get new ids.

These two files hold no host and no time: the same configuration and seed give the same bytes with the same versions of
NumPy and Arrow. Their metadata has `version` and `sources`, the SHA-256 of each file that the plan was made from.

Columns of schedule.parquet:
    request_id: number of the request.
    cell: the window that sends it, or `warmup`.
    arrival_ns: offset from the window's start; null in a closed loop and for the later turns of a conversation.
    user: user of a closed loop that sends it.
    conversation, turn: its conversation, and its turn there, from 0.
    think_ns: wait after the end of the previous request of the same user or conversation; for the first request of a
        user in a closed loop, after the window's start.
    prompt_id: row of prompts.parquet; several requests may share one.
    prompt_tokens: prompt length that is asked for; null where only the server can count it.
    max_tokens: most tokens to generate.
    salt: whether a cache salt is sent, because the content was sent before in the session and the workload wants no
        prefix reuse.

Columns of prompts.parquet:
    prompt_id: number of the prompt.
    workload: its workload in the configuration.
    token_ids: the prompt as token ids; exactly one of this, `text` and `messages` is set.
    text: the prompt as text.
    messages: the prompt as a JSON array of OpenAI's messages, as they are sent.
    answer: right answer of a graded prompt.
    group: shared prefix that it begins with; of a Mooncake trace the id of its first block.
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
