"""Tables of a plan: prompts.parquet and schedule.parquet, and the CSV and JSONL files that they are made from.

Both tables are written in parts, the same bytes for the same plan. Unlike measured files they hold no host and no time,
so that the same configuration and seed give the same file on every machine with the same versions of NumPy and Arrow.
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
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from inference_energy.contracts.io import CONTRACT_VERSION, atomic_write
from inference_energy.contracts.outside import MIB, decode_json, path_name, read_bytes, read_lines
from inference_energy.contracts.schedule import PROMPTS
from inference_energy.errors import InputError, Setting

VARIABLE = "INFERENCE_ENERGY_MACHINE"
"""Environment variable that names this machine if its host name does not, as in a container."""


def machine_name() -> str:
    """Return the machine's name, from the variable or the host name, with only letters, digits, `-` and `_`."""
    name = os.environ.get(VARIABLE) or platform.node()
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "unnamed"


NULL = -1
"""A missing whole number; no time, length or id of a plan is negative."""


def filled(column: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """Return a column of whole numbers as an array, with `NULL` for null."""
    values: NDArray[np.int64] = column.fill_null(NULL).to_numpy(zero_copy_only=False).astype(np.int64)
    return values


def column(values: NDArray[np.int64]) -> pa.Array:
    """Return an array as an Arrow column, with null for `NULL`."""
    return pa.array(values, type=pa.int64(), mask=values == NULL)


class Line(NamedTuple):
    """A line, or an entry, of a file, and the configuration key that names the file."""

    name: str
    key: str

    def error(self, text: str, *write: Setting) -> InputError:
        """Return the error to raise about this line."""
        return InputError(f"{self.name}: {text}", key=self.key, write=write)


MAX_FILE_BYTES = 2048 * MIB
"""Largest file of prompts, all of which are kept in memory; the largest published ones have 700 MB."""


def text_lines(path: str, key: str) -> Iterator[str]:
    """Yield the lines of a text file that is kept in memory; see `contracts.outside.read_lines`.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        for _, text in read_lines(Path(path), max_bytes=MAX_FILE_BYTES):
            yield text
    except InputError as error:
        raise InputError(error.notice.text, key=key) from error


def json_entries(path: str, key: str) -> Iterator[tuple[Line, Any]]:
    """Yield the entries of a file that is kept in memory: of a JSON list, or the lines of a JSONL file.

    Raises:
        InputError: the file cannot be read, or an entry is no JSON; the message has its number.
    """
    begins = next((text.lstrip() for text in text_lines(path, key) if text.strip()), "")
    if not begins.startswith("["):
        yield from json_lines(path, key, MAX_FILE_BYTES)
        return
    name = path_name(path)
    try:
        entries = decode_json(read_bytes(Path(path), MAX_FILE_BYTES))
    except InputError as error:
        raise InputError(error.notice.text, key=key) from error
    except ValueError as error:
        raise InputError(f"{name}: {error}", key=key) from error
    for number, entry in enumerate(entries, start=1):
        yield Line(f"{name}: entry {number}", key), entry


def json_lines(path: str, key: str, max_bytes: int | None = None) -> Iterator[tuple[Line, Any]]:
    """Yield the value of each line of a JSONL file that is not empty.

    Raises:
        InputError: the file cannot be read, or a line is no JSON; the message has its number.
    """
    try:
        for number, text in read_lines(Path(path), max_bytes=max_bytes):
            if text.strip():
                line = Line(f"{path_name(path)}:{number}", key)
                try:
                    value = decode_json(text)
                except ValueError as error:
                    raise line.error(str(error)) from error
                yield line, value
    except InputError as error:
        raise error if error.notice.key else InputError(error.notice.text, key=key) from error


def names_found(content: Any) -> str:
    """Return the keys of an object for a message, at most eight of them; of anything else its type."""
    if not isinstance(content, dict):
        return {list: "a list", str: "a text", type(None): "null"}.get(type(content), f"{content!r:.40}")
    names = [str(name)[:40] for name in list(content)[:8]]
    return ", ".join([*names, *(["..."] if len(content) > len(names) else [])]) or "nothing"


def shown(value: Any) -> str:
    """Return a value for a message, at most 60 characters of it."""
    if isinstance(value, int) and abs(value) > 10**40:
        return "a number of more than 40 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_columns(path: str, column_types: Mapping[str, pa.DataType], key: str) -> Iterator[pa.RecordBatch]:
    """Yield batches of some columns of a CSV file, under the names of `column_types`.

    Args:
        path: the file; its first line has the names of the columns.
        column_types: names and types of the columns; case, spaces and punctuation in names are ignored.
        key: configuration key of the path, for messages.

    Raises:
        InputError: the file cannot be read, lacks a column, has one twice, or holds a value of another type.
    """
    names = head(path, key)
    name_in_file = {name: match_name(name, names) for name in column_types}
    lacking = [name for name, match in name_in_file.items() if match is None]
    if lacking:
        raise InputError(
            f"{path_name(path)} lacks the column {', '.join(lacking)}; found: "
            f"{names_found(dict.fromkeys(names))}. Is it of this format?",
            key=key,
        )
    included = [str(name) for name in name_in_file.values()]
    if twice := [name for name in included if names.count(name) > 1]:
        raise InputError(f"{path_name(path)} has the column {twice[0]} {names.count(twice[0])} times", key=key)
    types = dict(zip(included, column_types.values(), strict=True))
    options = pacsv.ConvertOptions(include_columns=included, column_types=types, strings_can_be_null=True)
    try:
        with pacsv.open_csv(path, convert_options=options) as reader:
            for batch in reader:
                yield pa.RecordBatch.from_arrays(batch.columns, names=list(column_types))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path_name(path)}: {str(error)[:300]}", key=key) from error


MAX_HEAD_BYTES = MIB


def head(path: str, key: str) -> list[str]:
    """Return the names in the first line of a CSV file.

    Raises:
        InputError: the file cannot be read, is empty, or has a first line without an end.
    """
    try:
        number, line = next(read_lines(Path(path), MAX_HEAD_BYTES), (0, ""))
        names = next(csv.reader([line]), [])
    except InputError as error:
        raise InputError(error.notice.text, key=key) from error
    except csv.Error as error:
        raise InputError(f"{path_name(path)} cannot be read: {error}", key=key) from error
    if not names:
        raise InputError(f"{path_name(path)} is empty" if not number else f"{path_name(path)}:1 is empty", key=key)
    return names


def match_name(name: str, candidates: Sequence[str]) -> str | None:
    """Return the first candidate that equals the name, ignoring case, spaces and punctuation."""
    return next((candidate for candidate in candidates if _plain(candidate) == _plain(name)), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def write_plan(path: Path, tables: Iterable[pa.Table], schema: pa.Schema, sources: Mapping[str, str]) -> None:
    """Write tables of one contract as one Parquet file, under a temporary name that is then renamed.

    Args:
        path: the file to write; its folder is made if absent.
        tables: tables with the columns of `schema`.
        schema: the schema of the contract.
        sources: SHA-256 of each file that went into the plan, by its path in the configuration.
    """
    facts = {"version": str(CONTRACT_VERSION), "sources": json.dumps(dict(sources), sort_keys=True)}
    # Random token ids do not repeat, so dictionary encoding would only cost time.
    repetitive = [name for name in ("workload", "cell") if name in schema.names]
    stamped = schema.with_metadata(facts)
    with (
        atomic_write(path) as partial,
        pq.ParquetWriter(partial, stamped, compression="zstd", use_dictionary=repetitive) as writer,
    ):
        for table in tables:
            writer.write_table(table)


def read_prompts(path: Path) -> Iterable[pa.RecordBatch]:
    """Return the prompts of a file in batches.

    Raises:
        InputError: it is missing, is not Parquet, or lacks a column.
    """
    try:
        file = pq.ParquetFile(path, pre_buffer=False)  # otherwise the whole file is held in memory
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {error}") from error
    lacking = [name for name in PROMPTS.names if name not in file.schema_arrow.names]
    if lacking:
        raise InputError(f"{path}: lacks the column(s) {', '.join(lacking)}; was it written by another tool?")
    return (batch.select(PROMPTS.names) for batch in file.iter_batches(1 << 14))


def digests(paths: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of each file by its path.

    Raises:
        InputError: a file cannot be read.
    """
    sha256_by_path = {}
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                sha256_by_path[path] = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path_name(path)}: cannot be read: {reason}") from error
    return sha256_by_path
