"""server_metrics.parquet: the server's own counters and gauges, one row a sample, times in monotonic ns.

Every sample whose name begins with an engine's prefix is kept (`contracts.engines`). `labels` is a JSON object with
sorted keys, without `model_name`. Rows are in order of time; the rows of one scrape share a time.

Gauges, counters, and `_sum` and `_count` of histograms have a row for every scrape. Buckets of histograms (`_bucket`)
and times of creation (`_created`) have one only when their value has changed since the scrape before, so without a row
at a time the row before it holds.
"""

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("timestamp_ns", pa.int64()),
        ("name", pa.string()),
        ("labels", pa.string()),
        ("value", pa.float64()),
    ]
)

ON_CHANGE = ("_bucket", "_created")
"""Ends of the names whose samples have a row only when they changed."""
