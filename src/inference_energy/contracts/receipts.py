"""receipts.parquet: the energy each request is charged, one row a request and policy.

The receipts of a cell and policy sum to the energy of its window. `prefill_energy_j` and `decode_energy_j` are null
under policies that do not split them.
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
