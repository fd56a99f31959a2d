"""receipts.parquet: the energy that each request is charged, one row a request.

The receipts of a window sum to its energy. The carbon intensity is applied later, so that another zone repeats no
attribution.

Columns of receipts.parquet:
    request_id, cell: the request, as in requests.parquet.
    policy: `completion_tokens` or `total_tokens`.
    energy_j: its share of the window's total energy; null where that is not valid.
    prefill_energy_j, decode_energy_j: always null: the policies do not split a request.
    idle_energy_j: the part of `energy_j` that the cold idle would have taken anyway.
    gco2e: always null.
"""

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("request_id", pa.int64()),
        ("cell", pa.string()),
        ("policy", pa.string()),
        ("energy_j", pa.float64()),
        ("prefill_energy_j", pa.float64()),
        ("decode_energy_j", pa.float64()),
        ("idle_energy_j", pa.float64()),
        ("gco2e", pa.float64()),
    ]
)
