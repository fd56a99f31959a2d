"""A request log outside the pipeline as CSV, with the seed's columns first."""

import os
from pathlib import Path

from inference_energy.contracts.requests import SCHEMA
from inference_energy.contracts.tables import read_metadata, read_table
from inference_energy.errors import InputError


def check_ending(path: Path) -> None:
    """Raises InputError unless the path ends in .csv or .parquet."""
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"--output: {path} must end in .csv or .parquet")


def write_csv(requests: Path, target: Path) -> None:
    """Write a requests.parquet as CSV.

    It begins with `timestamp` (when sent, Unix time in s), `prompt_tokens`, `completion_tokens` and `latency` (from
    sending to the end, s); the contract's columns follow.

    Raises:
        InputError: `requests` is missing or no such file.
    """
    rows = read_table(requests, SCHEMA)
    anchor = read_metadata(requests)["clock_anchor"]
    offset_ns = anchor["unix_ns"] - anchor["monotonic_ns"]
    tokens = ["prompt_tokens", "completion_tokens"]
    table = rows[tokens].copy()
    table.insert(0, "timestamp", (rows["sent_ns"] + offset_ns).astype("Float64") / 1e9)
    table["latency"] = (rows["end_ns"] - rows["sent_ns"]).astype("Float64") / 1e9
    table = table.join(rows.drop(columns=tokens))
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    table.to_csv(partial, index=False, float_format="%.6f")
    partial.replace(target)
