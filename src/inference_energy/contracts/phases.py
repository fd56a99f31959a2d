"""phases.parquet: when each phase of a session began and ended.

A session has in order `launch`, `loaded_idle`, `warmup`, one `window` for each window (the time during which requests
were sent), `drain` after the warm-up and each window, `stop` and `post_idle`. Windows span the whole sending time;
their trimmed bounds are in steady_load.json and summary.json.

Columns of phases.parquet:
    phase: name of the phase.
    cell: the window's name for `window` and its `drain`, `warmup` for the warm-up and its drain; else null.
    start_ns, end_ns: start and end.
"""

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("phase", pa.string()),
        ("cell", pa.string()),
        ("start_ns", pa.int64()),
        ("end_ns", pa.int64()),
    ]
)
