"""A request log outside the pipeline: CSV with the seed's columns first, or the contract's Parquet."""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from inference_energy.acquire.load.request import RequestRecord
from inference_energy.contracts.requests import SCHEMA
from inference_energy.contracts.tables import write_table
from inference_energy.errors import InputError


def check_ending(path: Path) -> None:
    """Raises InputError unless the path ends in .csv or .parquet."""
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"--output: {path} must end in .csv or .parquet")


def write_requests(path: Path, records: Sequence[RequestRecord], anchor: dict[str, int]) -> None:
    """Write request records by the path's ending.

    The CSV begins with `timestamp` (when sent, Unix time in s), `prompt_tokens`, `completion_tokens` and `latency`
    (from sending to the end, s); the contract's columns follow.

    Raises:
        InputError: another ending.
    """
    check_ending(path)
    rows = pd.DataFrame([record.as_row() for record in records], columns=SCHEMA.names)
    if path.suffix == ".parquet":
        write_table(path, rows, SCHEMA, clock_anchor=anchor)
        return
    offset_ns = anchor["unix_ns"] - anchor["monotonic_ns"]
    rows = rows.astype({name: "Int64" for name in rows.columns if name.endswith(("_ns", "_tokens"))})
    seed = pd.DataFrame(
        {
            "timestamp": (rows["sent_ns"] + offset_ns).astype("Float64") / 1e9,
            "prompt_tokens": rows["prompt_tokens"],
            "completion_tokens": rows["completion_tokens"],
            "latency": (rows["end_ns"] - rows["sent_ns"]).astype("Float64") / 1e9,
        }
    )
    table = seed.join(rows.drop(columns=["prompt_tokens", "completion_tokens"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    table.to_csv(partial, index=False, float_format="%.6f")
    partial.replace(path)
