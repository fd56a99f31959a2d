"""Rows of a schedule file that is replayed unchanged: a schedule.parquet of this toolkit, or a user's CSV."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from inference_energy.config.base import MOST_SECONDS
from inference_energy.config.load.arrivals import MOST_REQUESTS, ScheduleArrival
from inference_energy.config.load.prompts import MOST_TOKENS
from inference_energy.contracts.outside import path_name
from inference_energy.contracts.schedule import SCHEDULE
from inference_energy.errors import InputError, Notice
from inference_energy.plan.cells import Cell
from inference_energy.plan.tables import NULL, filled, head, match_name, names_found, read_columns

CSV_LENGTHS = ("prompt_tokens", "max_tokens")


@dataclass(frozen=True)
class ReplayedRows:
    """Columns of `contracts.schedule.SCHEDULE` for a cell; missing values are `NULL`.

    Attributes:
        prompt_id: ids of the file; each row of a CSV has its own.
        notes: notes for the user on requests left out.
    """

    arrival_ns: NDArray[np.int64]
    user: NDArray[np.int64]
    conversation: NDArray[np.int64]
    turn: NDArray[np.int64]
    think_ns: NDArray[np.int64]
    prompt_id: NDArray[np.int64]
    prompt_tokens: NDArray[np.int64]
    max_tokens: NDArray[np.int64]
    notes: tuple[Notice, ...] = ()


def replayed_rows(cell: Cell, arrival: ScheduleArrival) -> ReplayedRows:
    """Return the rows of a cell's schedule file that begin before the cell ends.

    Raises:
        InputError: the file cannot be read, is of another format, or has no row for this cell.
    """
    key = f"{cell.key}.arrival"
    columns = _read_csv(arrival.path, key) if _is_csv(arrival.path) else _read_parquet(arrival, key)
    begins = np.maximum.accumulate(columns["arrival_ns"]) if len(columns["arrival_ns"]) else columns["arrival_ns"]
    # A later turn has no arrival time: it is left out if the first turn of its conversation is.
    begins = np.where(columns["turn"] > 0, _first_arrivals(columns["conversation"], columns["arrival_ns"]), begins)
    inside = np.where(columns["user"] == NULL, begins, 0) < round(cell.duration_s * 1e9)
    if not inside.any():
        raise InputError(f"{arrival.path} has no request in the first {cell.duration_s:g} s", key=f"{key}.path")
    left_out = int((~inside).sum())
    notes = (Notice(f"{left_out} requests of {arrival.path} lie beyond the cell's end and are left out", key),)
    return ReplayedRows(**{name: values[inside] for name, values in columns.items()}, notes=notes if left_out else ())


def _is_csv(path: str) -> bool:
    return Path(path).suffix.lower() in {".csv", ".txt"}


MOST_NS = MOST_SECONDS * 10**9
BOUNDS = {
    "arrival_ns": (0, MOST_NS),
    "user": (0, MOST_REQUESTS),
    "conversation": (0, MOST_REQUESTS),
    "turn": (0, MOST_REQUESTS),
    "think_ns": (0, MOST_NS),
    "prompt_id": (0, 2**53),
    "prompt_tokens": (1, MOST_TOKENS),
    "max_tokens": (1, MOST_TOKENS),
}
"""Smallest and largest value of each column of a schedule that is replayed."""


def _read_parquet(arrival: ScheduleArrival, key: str) -> dict[str, NDArray[np.int64]]:
    path, path_key = path_name(arrival.path), f"{key}.path"
    try:
        table = pq.read_table(arrival.path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet: {str(error)[:300]}", key=path_key) from error
    lacking = [name for name in SCHEDULE.names if name not in table.column_names]
    if lacking:
        found = names_found(dict.fromkeys(table.column_names))
        raise InputError(f"{path} lacks the column {', '.join(lacking)}; found: {found}", key=path_key)
    try:
        table = table.select(SCHEDULE.names).cast(SCHEDULE)
    except (ValueError, pa.ArrowException) as error:
        raise InputError(f"{path} is no schedule: {str(error)[:300]}", key=path_key) from error
    cells = table["cell"].unique().to_pylist()
    cell_name = arrival.cell if arrival.cell is not None else (cells[0] if len(cells) == 1 else None)
    if cell_name not in cells:
        there = names_found(dict.fromkeys(map(str, cells)))
        raise InputError(f"write which cell of {path} is replayed; there are: {there}", key=f"{key}.cell")
    table = table.filter(pa.compute.equal(table["cell"], cell_name))
    for name, (lowest, highest) in BOUNDS.items():
        extremes = pa.compute.min_max(table[name]).as_py()
        is_missing = name in ("prompt_id", "max_tokens") and table[name].null_count
        beyond = [value for value in extremes.values() if value is not None and not lowest <= value <= highest]
        if is_missing or beyond:
            text = f"{name}: a number from {lowest} to {highest} is expected"
            raise InputError(f"{path}: {text}, got {beyond[0] if beyond else 'none'}", key=path_key)
    return {name: filled(table[name]) for name in BOUNDS}


def _read_csv(path: str, key: str) -> dict[str, NDArray[np.int64]]:
    length_columns = [name for name in CSV_LENGTHS if match_name(name, head(path, f"{key}.path"))]
    column_types = {"arrival_s": pa.float64(), **dict.fromkeys(length_columns, pa.int64())}
    batches = list(read_columns(path, column_types, f"{key}.path"))
    table = pa.Table.from_batches(batches, pa.schema(list(column_types.items())))
    times_s = table["arrival_s"].to_numpy()
    lengths = {name: filled(table[name]) for name in length_columns}
    checks = [("arrival_s", times_s, (times_s >= 0) & (times_s <= MOST_SECONDS), f"0 or more, at most {MOST_SECONDS},")]
    for name, values in lengths.items():
        checks.append(
            (name, values, (values >= 1) & (values <= MOST_TOKENS), f"a whole number from 1 up, at most {MOST_TOKENS},")
        )
    for name, values, is_right, expected in checks:
        if not is_right.all():
            row = int(np.flatnonzero(~is_right)[0])
            got = "none" if table[name][row].as_py() is None else f"{values[row]:g}"
            text = f"{path_name(path)}: {name} must be {expected} in every row; row {row + 1} has {got}"
            raise InputError(text, key=f"{key}.path")
    order = np.argsort(times_s, kind="stable")
    none = np.full(len(order), NULL)
    columns = {name: lengths[name][order] if name in length_columns else none for name in CSV_LENGTHS}
    return columns | {
        "arrival_ns": np.rint(times_s[order] * 1e9).astype(np.int64),
        "prompt_id": np.arange(len(order)),
        **dict.fromkeys(("user", "conversation", "turn", "think_ns"), none),
    }


def _first_arrivals(conversation: NDArray[np.int64], arrival_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each row the earliest arrival in its conversation; `NULL` if there is none."""
    has_arrival = arrival_ns != NULL
    names, index = np.unique(conversation, return_inverse=True)
    first = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(first, index[has_arrival], arrival_ns[has_arrival])
    return np.where(first == np.iinfo(np.int64).max, NULL, first)[index]
