"""Rows of a schedule file, replayed as they are: a schedule.parquet of ours, or a CSV of your own."""

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
    """Columns of `contracts.schedule.SCHEDULE` for a cell; `NULL` where there is none.

    Attributes:
        prompt_id: as in the file; a CSV's rows each have their own.
        notes: what was left out, for people.
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
    """The rows of a cell's schedule file that begin before the cell ends.

    Raises:
        InputError: the file cannot be read, is of another kind, or has no row for this cell.
    """
    key = f"{cell.key}.arrival"
    columns = _of_csv(arrival.path, key) if _is_csv(arrival.path) else _of_parquet(arrival, key)
    begins = np.maximum.accumulate(columns["arrival_ns"]) if len(columns["arrival_ns"]) else columns["arrival_ns"]
    # A later turn has no time of its own: it is left out with the first turn of its conversation.
    begins = np.where(columns["turn"] > 0, _first_of(columns["conversation"], columns["arrival_ns"]), begins)
    inside = np.where(columns["user"] == NULL, begins, 0) < round(cell.duration_s * 1e9)
    if not inside.any():
        raise InputError(f"{arrival.path} has no request in the first {cell.duration_s:g} s", key=f"{key}.path")
    left_out = int((~inside).sum())
    notes = (Notice(f"{left_out} requests of {arrival.path} lie beyond the cell's end and are left out", key),)
    return ReplayedRows(**{name: values[inside] for name, values in columns.items()}, notes=notes if left_out else ())


def _is_csv(path: str) -> bool:
    return Path(path).suffix.lower() in {".csv", ".txt"}


def _of_parquet(arrival: ScheduleArrival, key: str) -> dict[str, NDArray[np.int64]]:
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
    wanted = arrival.cell if arrival.cell is not None else (cells[0] if len(cells) == 1 else None)
    if wanted not in cells:
        raise InputError(
            f"write which cell of {path} is replayed; there are: {', '.join(map(str, cells))}", key=f"{key}.cell"
        )
    table = table.filter(pa.compute.equal(table["cell"], wanted))
    names = [name for name in SCHEDULE.names if name not in ("request_id", "cell", "salt")]
    return {name: filled(table[name]) for name in names}


def _of_csv(path: str, key: str) -> dict[str, NDArray[np.int64]]:
    found = [name for name in CSV_LENGTHS if match_name(name, head(path, f"{key}.path"))]
    wanted = {"arrival_s": pa.float64(), **dict.fromkeys(found, pa.int64())}
    batches = list(read_columns(path, wanted, f"{key}.path"))
    table = pa.Table.from_batches(batches, pa.schema(list(wanted.items())))
    times_s = table["arrival_s"].to_numpy()
    if np.isnan(times_s).any() or (times_s < 0).any():
        raise InputError(f"{path}: arrival_s must be 0 or more in every row", key=f"{key}.path")
    order = np.argsort(times_s, kind="stable")
    none = np.full(len(order), NULL)
    columns = {name: filled(table[name])[order] if name in found else none for name in CSV_LENGTHS}
    for name in found:
        if (columns[name] < 1).any():
            raise InputError(f"{path}: {name} must be a whole number from 1 up in every row", key=f"{key}.path")
    return columns | {
        "arrival_ns": np.rint(times_s[order] * 1e9).astype(np.int64),
        "prompt_id": np.arange(len(order)),
        **dict.fromkeys(("user", "conversation", "turn", "think_ns"), none),
    }


def _first_of(conversation: NDArray[np.int64], arrival_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row the earliest known arrival of its conversation; `NULL` where there is none."""
    known = arrival_ns != NULL
    names, place = np.unique(conversation, return_inverse=True)
    first = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(first, place[known], arrival_ns[known])
    return np.where(first == np.iinfo(np.int64).max, NULL, first)[place]
