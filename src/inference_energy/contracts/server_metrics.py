"""server_metrics.parquet: the server's own counters and gauges, one row a sample, times in monotonic ns.

`labels` is a JSON object with sorted keys. Histograms keep their `_sum` and `_count`.
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
