"""answers.parquet (optional): the text of each answer, also of one that failed or was cut off."""

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("request_id", pa.int64()),
        ("cell", pa.string()),
        ("text", pa.string()),
    ]
)
