"""Parquet files of the data contracts: one way to write them, one way to read them.

Every file is zstd-compressed, written to a temporary name and renamed, and carries in its schema metadata the
contract's version, the clock anchor (one pair of monotonic and wall-clock time), the host and the sources.
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from inference_energy.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

CONTRACT_VERSION = 1


def clock_anchor() -> dict[str, int]:
    """One pair of monotonic and wall-clock time in ns, taken together.

    The wall clock is read between two reads of the monotonic clock, whose mean is kept.
    """
    before_ns = time.monotonic_ns()
    unix_ns = time.time_ns()
    after_ns = time.monotonic_ns()
    return {"monotonic_ns": (before_ns + after_ns) // 2, "unix_ns": unix_ns}


def write_table(
    path: Path, rows: pd.DataFrame | pa.Table | list[dict[str, Any]], schema: pa.Schema, **metadata: Any
) -> None:
    """Write rows as Parquet under `schema`; missing columns become null, unknown ones are an error.

    Args:
        path: the file to make; its folder is made too.
        rows: a data frame, an Arrow table, or a list of records.
        schema: the contract.
        metadata: JSON-able values for the schema metadata, such as `clock_anchor` and `source`.

    Raises:
        pyarrow.ArrowInvalid: a value does not fit its column's type.
    """
    if isinstance(rows, pa.Table):
        table = rows.select(schema.names).cast(schema)
    elif isinstance(rows, list):
        table = pa.Table.from_pylist(rows, schema=schema)
    else:
        table = pa.Table.from_pandas(rows.reindex(columns=schema.names), schema=schema, preserve_index=False)
    encoded = schema_metadata(**metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        pq.write_table(table.replace_schema_metadata(encoded), partial, compression="zstd")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def schema_metadata(**metadata: Any) -> dict[str, str]:
    """What a contract's file carries in its schema: the contract's version, the host, and what is given."""
    facts: dict[str, Any] = {"version": CONTRACT_VERSION, "host": platform.node(), **metadata}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def read_table(path: Path, schema: pa.Schema) -> pd.DataFrame:
    """Read a contract's file as a data frame with the columns of `schema`; nullable integers stay integers.

    Raises:
        InputError: the file is missing, is not Parquet, or lacks a column.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {error}") from error
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise InputError(f"{path}: lacks the column(s) {', '.join(missing)}; was it written by another tool?")
    frame: pd.DataFrame = table.select(schema.names).to_pandas(types_mapper=_nullable_integers)
    return frame


def read_metadata(path: Path) -> dict[str, Any]:
    """The schema metadata of a contract's file, decoded."""
    raw = pq.read_schema(path).metadata or {}
    decoded: dict[str, Any] = {}
    for key, value in raw.items():
        if key in (b"pandas", b"ARROW:schema"):
            continue
        try:
            decoded[key.decode()] = json.loads(value)
        except json.JSONDecodeError:
            decoded[key.decode()] = value.decode()
    return decoded


def write_json(path: Path, content: Any) -> None:
    """Write JSON with a temporary name and a rename; keys keep their order, NaN is refused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON: {error}") from error


def _nullable_integers(arrow_type: pa.DataType) -> Any:
    import pandas as pd

    return pd.Int64Dtype() if pa.types.is_integer(arrow_type) else None
