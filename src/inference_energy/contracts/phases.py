"""phases.parquet: when each phase of a session began and ended, in monotonic ns.

Phases in order: `launch`, `loaded_idle`, `warmup`, one `window` for each cell (the time during which requests were
sent), `drain` after the warm-up and each window, `stop`, `post_idle`. `cell` is the window's name for `window` and its
`drain`, `warmup` for the warm-up and its drain, else null.
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
