"""Tables of a plan: prompts.parquet and schedule.parquet, and the columns of the CSV files that they are made from.

Both are written in parts, the same bytes for the same plan. Unlike measured files they hold no host and no time, so
that the same configuration and seed give the same file on every machine with the same versions of NumPy and Arrow.
Their metadata has the contract's version and the SHA-256 of each file that went into the plan. A whole number that is
missing is `NULL` in NumPy and null in Arrow.
"""

import csv
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from inference_energy.contracts.io import CONTRACT_VERSION, atomic_write
from inference_energy.contracts.schedule import PROMPTS
from inference_energy.errors import InputError

VARIABLE = "INFERENCE_ENERGY_MACHINE"
"""Names this machine where its host name does not, as in a container."""


def machine_name() -> str:
    """The host name, or what the variable says, with only letters, digits, `-` and `_`."""
    name = os.environ.get(VARIABLE) or platform.node()
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "unnamed"


NULL = -1
"""No time, length or id of a plan is negative."""


def filled(column: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """A column of whole numbers, `NULL` where it has none."""
    values: NDArray[np.int64] = column.fill_null(NULL).to_numpy(zero_copy_only=False).astype(np.int64)
    return values


def column(values: NDArray[np.int64]) -> pa.Array:
    """The Arrow column, null where there is `NULL`."""
    return pa.array(values, type=pa.int64(), mask=values == NULL)


def read_columns(path: str, wanted: Mapping[str, pa.DataType], key: str) -> Iterator[pa.RecordBatch]:
    """Batches of the wanted columns, under the names asked for.

    Args:
        path: the file; its first line has the names of the columns.
        wanted: names and types; case, spaces and signs in names do not matter.
        key: what the messages begin with.

    Raises:
        InputError: the file cannot be read, lacks a column, or holds a value of another type.
    """
    names = head(path, key)
    found = {name: match_name(name, names) for name in wanted}
    lacking = [name for name, spelled in found.items() if spelled is None]
    if lacking:
        raise InputError(
            f"{path} lacks the column {', '.join(lacking)}; found: {', '.join(names)}. Is it of this format?", key=key
        )
    spelled = [str(name) for name in found.values()]
    types = dict(zip(spelled, wanted.values(), strict=True))
    options = pacsv.ConvertOptions(include_columns=spelled, column_types=types, strings_can_be_null=True)
    try:
        with pacsv.open_csv(path, convert_options=options) as reader:
            for batch in reader:
                yield pa.RecordBatch.from_arrays(batch.columns, names=list(wanted))
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: {error}", key=key) from error


def head(path: str, key: str) -> list[str]:
    """The names in the first line of a CSV file.

    Raises:
        InputError: the file cannot be read or is empty.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}", key=key) from error
    if not names:
        raise InputError(f"{path} is empty", key=key)
    return names


def match_name(wanted: str, names: Sequence[str]) -> str | None:
    """The name that is the wanted one but for case, spaces and signs."""
    return next((name for name in names if _plain(name) == _plain(wanted)), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def write_plan(path: Path, tables: Iterable[pa.Table], schema: pa.Schema, sources: Mapping[str, str]) -> None:
    """Write tables of one contract as one Parquet file, under a temporary name that is then renamed.

    Args:
        path: the file to make; its folder is made too.
        tables: with the columns of `schema`.
        schema: the contract.
        sources: SHA-256 of each file that went into the plan, by its path in the configuration.
    """
    facts = {"version": str(CONTRACT_VERSION), "sources": json.dumps(dict(sources), sort_keys=True)}
    # Random token ids do not repeat: a dictionary of them would only cost time.
    repetitive = [name for name in ("workload", "cell") if name in schema.names]
    stamped = schema.with_metadata(facts)
    with (
        atomic_write(path) as partial,
        pq.ParquetWriter(partial, stamped, compression="zstd", use_dictionary=repetitive) as writer,
    ):
        for table in tables:
            writer.write_table(table)


def read_prompts(path: Path) -> Iterable[pa.RecordBatch]:
    """The prompts of a file in parts.

    Raises:
        InputError: it is missing, is not Parquet, or lacks a column.
    """
    try:
        file = pq.ParquetFile(path, pre_buffer=False)  # otherwise all of it lies in memory
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {error}") from error
    lacking = [name for name in PROMPTS.names if name not in file.schema_arrow.names]
    if lacking:
        raise InputError(f"{path}: lacks the column(s) {', '.join(lacking)}; was it written by another tool?")
    return (batch.select(PROMPTS.names) for batch in file.iter_batches(1 << 14))


def digests(paths: Sequence[str]) -> dict[str, str]:
    """SHA-256 of files.

    Raises:
        InputError: one cannot be read.
    """
    found = {}
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                found[path] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return found
