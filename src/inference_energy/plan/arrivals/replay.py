"""Rows of a schedule file that is replayed unchanged: a schedule.parquet of this toolkit, or a user's CSV."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import ScheduleArrival
from inference_energy.contracts.schedule import SCHEDULE
from inference_energy.errors import InputError, Notice
from inference_energy.plan.cells import Cell
from inference_energy.plan.tables import NULL, filled, head, match_name, read_columns

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


def _read_parquet(arrival: ScheduleArrival, key: str) -> dict[str, NDArray[np.int64]]:
    path = arrival.path
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}", key=f"{key}.path") from error
    lacking = [name for name in SCHEDULE.names if name not in table.column_names]
    if lacking:
        raise InputError(
            f"{path} lacks the column {', '.join(lacking)}; found: {', '.join(table.column_names)}",
            key=f"{key}.path",
        )
    cells = table["cell"].unique().to_pylist()
    cell_name = arrival.cell if arrival.cell is not None else (cells[0] if len(cells) == 1 else None)
    if cell_name not in cells:
        raise InputError(
            f"write which cell of {path} is replayed; there are: {', '.join(map(str, cells))}", key=f"{key}.cell"
        )
    table = table.filter(pa.compute.equal(table["cell"], cell_name))
    names = [name for name in SCHEDULE.names if name not in ("request_id", "cell", "salt")]
    return {name: filled(table[name]) for name in names}


def _read_csv(path: str, key: str) -> dict[str, NDArray[np.int64]]:
    length_columns = [name for name in CSV_LENGTHS if match_name(name, head(path, f"{key}.path"))]
    column_types = {"arrival_s": pa.float64(), **dict.fromkeys(length_columns, pa.int64())}
    batches = list(read_columns(path, column_types, f"{key}.path"))
    table = pa.Table.from_batches(batches, pa.schema(list(column_types.items())))
    times_s = table["arrival_s"].to_numpy()
    if np.isnan(times_s).any() or (times_s < 0).any():
        raise InputError(f"{path}: arrival_s must be 0 or more in every row", key=f"{key}.path")
    order = np.argsort(times_s, kind="stable")
    none = np.full(len(order), NULL)
    columns = {name: filled(table[name])[order] if name in length_columns else none for name in CSV_LENGTHS}
    for name in length_columns:
        if (columns[name] < 1).any():
            raise InputError(f"{path}: {name} must be a whole number from 1 up in every row", key=f"{key}.path")
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
