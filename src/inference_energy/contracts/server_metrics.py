"""server_metrics.parquet: the server's own counters and gauges, one row a sample.

Every sample whose name begins with an engine's prefix (`contracts.engine_metrics`) is kept. Rows are in order of time;
the rows of one scrape share a time.

Gauges, counters, and `_sum` and `_count` of histograms have a row for every scrape. Buckets of histograms (`_bucket`)
and times of creation (`_created`) have one only when their value has changed, so the row before holds until then. While
the session runs the same is in `server_metrics.arrows` among its logs, which can be read up to its last whole scrape.

Columns of server_metrics.parquet:
    timestamp_ns: middle of the scrape.
    name: name of the sample, such as `vllm:num_requests_running`.
    labels: JSON object with sorted keys; earlier files lack `model_name`.
    value: value of the sample.
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
