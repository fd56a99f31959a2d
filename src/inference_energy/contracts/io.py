"""Files of the pipeline: replaced as a whole or not at all, as JSON or as Parquet under a data contract.

Every Parquet file is zstd-compressed and carries in its schema metadata the contract's version, the clock anchor (one
pair of monotonic and wall-clock time), the host and the sources.

Arrow is imported where a table is read or written, because processes that send load import this module too.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference_energy.contracts.outside import path_name
from inference_energy.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

CONTRACT_VERSION = 1
FILE_MODE = 0o664
"""Most that a new file allows; the umask takes more away."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, and rename it to `path` when the block ends without an error.

    Readers see the old file or the new one, whole. After an error the temporary file is removed and `path` is as it
    was. The folder is made if it is missing. The temporary file is new and has a name that nobody can guess, so that in
    a folder such as /tmp no other user has put a link in its place. It is never writable for all, whatever the umask.

    Raises:
        OSError: the folder cannot be made, or the file cannot be made or renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.partial")
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE))
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def ensure_writable(path: Path) -> None:
    """Make the folder of a file, and check that it can be written, before the measurement that produces it.

    Raises:
        InputError: nothing can be written there, or the name cannot be that of a file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.lstat()  # a name that is too long
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"{path_name(path)} cannot be written: {error.strerror}; name another place") from error
    except ValueError as error:
        raise InputError(f"{path_name(path)} cannot be the name of a file; name another") from error
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")


def copy_file(source: Path, target: Path) -> None:
    """Copy the content of a file under the name `target`, as a whole or not at all."""
    with atomic_write(target) as partial:
        partial.write_bytes(source.read_bytes())


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically; keys keep their order, NaN is refused."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing, cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def clock_anchor() -> dict[str, int]:
    """Return one pair of monotonic and wall-clock time in ns, taken together.

    The wall clock is read between two reads of the monotonic clock, whose mean is kept.
    """
    before_ns = time.monotonic_ns()
    unix_ns = time.time_ns()
    after_ns = time.monotonic_ns()
    return {"monotonic_ns": (before_ns + after_ns) // 2, "unix_ns": unix_ns}


def schema_metadata(**metadata: Any) -> dict[str, str]:
    """Return a file's schema metadata: the contract's version, the host, and `metadata`, each value as JSON text."""
    facts: dict[str, Any] = {"version": CONTRACT_VERSION, "host": platform.node(), **metadata}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


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
    import pyarrow as pa
    import pyarrow.parquet as pq

    if isinstance(rows, pa.Table):
        table = rows.select(schema.names).cast(schema)
    elif isinstance(rows, list):
        table = pa.Table.from_pylist(rows, schema=schema)
    else:
        table = pa.Table.from_pandas(rows.reindex(columns=schema.names), schema=schema, preserve_index=False)
    with atomic_write(path) as partial:
        pq.write_table(table.replace_schema_metadata(schema_metadata(**metadata)), partial, compression="zstd")


def read_table(path: Path, schema: pa.Schema) -> pd.DataFrame:
    """Read a contract's file as a data frame with the columns of `schema`; nullable integers stay integers.

    Raises:
        InputError: the file is missing, is not Parquet, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

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
    """Read the schema metadata of a contract's file, decoded."""
    import pyarrow.parquet as pq

    raw = pq.read_schema(path).metadata or {}
    decoded: dict[str, Any] = {}
    for key, value in raw.items():
        if key in (b"pandas", b"ARROW:schema"):
            continue
        try:
            decoded[key.decode(errors="replace")] = json.loads(value)
        except (ValueError, RecursionError):  # text, or not UTF-8
            decoded[key.decode(errors="replace")] = value.decode(errors="replace")
    return decoded


def _nullable_integers(arrow_type: pa.DataType) -> Any:
    import pandas as pd
    import pyarrow as pa

    return pd.Int64Dtype() if pa.types.is_integer(arrow_type) else None
