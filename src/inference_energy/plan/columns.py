"""Reading the columns of a large CSV file, in parts, whatever the spelling of their names."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv

from inference_energy.errors import InputError


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
            f"{key}: {path} lacks the column {', '.join(lacking)}; found: {', '.join(names)}. Is it of this format?"
        )
    spelled = [str(name) for name in found.values()]
    types = dict(zip(spelled, wanted.values(), strict=True))
    options = pacsv.ConvertOptions(include_columns=spelled, column_types=types, strings_can_be_null=True)
    try:
        with pacsv.open_csv(path, convert_options=options) as reader:
            for batch in reader:
                yield pa.RecordBatch.from_arrays(batch.columns, names=list(wanted))
    except pa.ArrowInvalid as error:
        raise InputError(f"{key}: {path}: {error}") from error


def head(path: str, key: str) -> list[str]:
    """The names in the first line of a CSV file.

    Raises:
        InputError: the file cannot be read or is empty.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{key}: {path} cannot be read: {error}") from error
    if not names:
        raise InputError(f"{key}: {path} is empty")
    return names


def match_name(wanted: str, names: Sequence[str]) -> str | None:
    """The name that is the wanted one but for case, spaces and signs."""
    return next((name for name in names if _plain(name) == _plain(wanted)), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
