"""Files of a live server's record of itself: their schema, and reading them after an orderly end or a crash.

A folder of truth holds `server.json` and three tables, each as NAME.parquet after an orderly end, else as NAME.arrows
(an Arrow stream, perhaps cut off):
    steps: the columns of `truth.ledger.Segments`, one row for each stretch of time;
    requests: REQUEST_SCHEMA; in the Parquet form also `prefill_energy_j` and `decode_energy_j`, of all GPUs;
    events: request_id, token (from 1), due_ns (its step's end), sent_ns (when it was written to the connection).
All times are int64 ns of the monotonic clock. All of it is simulated.
"""

import json
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from inference_energy.bench.config import Node
from inference_energy.bench.hardware import BenchModelShape
from inference_energy.bench.truth.ledger import BenchRequest, Segments, ledger
from inference_energy.bench.truth.step import StepPhysics
from inference_energy.contracts.arrow_log import ArrowLogReader
from inference_energy.contracts.io import atomic_write
from inference_energy.errors import RunError

SERVER = "server.json"
STEPS, REQUESTS, EVENTS = "steps", "requests", "events"
REQUESTS_AT_ONCE = 20_000
ROWS_AT_ONCE = 1_000_000

_COUNTS = pa.list_(pa.int64())
REQUEST_SCHEMA = pa.schema(
    [
        ("request_id", pa.int64()),
        ("name", pa.string()),
        ("arrival_ns", pa.int64()),
        ("first_token_ns", pa.int64()),
        ("last_token_ns", pa.int64()),
        ("prompt_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("delivered_tokens", pa.int64()),
        ("outcome", pa.string()),
        ("preemptions", pa.int64()),
        ("prefills", pa.int64()),
        ("chunk_step", _COUNTS),
        ("chunk_tokens", _COUNTS),
        ("chunk_pairs", pa.list_(pa.float64())),
        ("decode_step", _COUNTS),
        ("decode_context", _COUNTS),
        ("decode_steps", _COUNTS),
    ]
)
"""One row a request, in the order in which they left the engine. `completion_tokens` were computed, of which
`delivered_tokens` were handed over; `outcome` is stop, length, abort or error. The columns with lists are what
`truth.request.Request` calls chunks and decodes."""


def read_truth(folder: Path, name: str) -> pa.Table:
    """One of the tables: `steps`, `requests` or `events`; empty where nothing was written.

    Args:
        folder: a server's truth.
        name: which table.
    """
    finished = folder / f"{name}.parquet"
    if finished.exists():
        return pq.read_table(finished)
    tables = list(_row_groups(folder, name, ROWS_AT_ONCE))
    return pa.concat_tables(tables) if tables else pa.table({})


def physics_of(folder: Path) -> StepPhysics:
    """The physics of the server that wrote a folder of truth.

    Raises:
        InputError: `server.json` does not fit.
    """
    server = json.loads((folder / SERVER).read_text())
    node = Node.parse(server["node"])
    return StepPhysics(node.device, BenchModelShape(**server["shape"]), node.engine, node.tensor_parallel)


def finish(folder: Path, physics: StepPhysics) -> dict[str, float]:
    """Turn the streams of a server that has ended into Parquet files, with the requests' energies.

    A server that ends in order does this itself; after a crash only the requests that had left the engine have
    energies, and what belongs to the others is in none of the sums.

    Args:
        folder: the server's truth.
        physics: see `physics_of`.

    Returns:
        `total_energy_j`, `rest_energy_j` (no step ran) and `requests_energy_j`, all of all GPUs.
    """
    segments = _segments(folder)
    requests_j, rest_j, total_j = 0.0, 0.0, 0.0
    if len(segments):
        empty = ledger(segments, [], physics)
        rest_j, total_j = empty.rest_j, empty.total_j
    energies = [pa.field("prefill_energy_j", pa.float64()), pa.field("decode_energy_j", pa.float64())]
    schema = pa.schema([*REQUEST_SCHEMA, *energies])
    with _parquet_writer(folder, REQUESTS, schema) as writer:
        for part in _row_groups(folder, REQUESTS, REQUESTS_AT_ONCE):
            split = ledger(segments, [_request(row) for row in part.to_pylist()], physics)
            columns = [*part.columns, pa.array(split.prefill_j), pa.array(split.decode_j)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            requests_j += float(split.prefill_j.sum() + split.decode_j.sum())
    for name in (STEPS, EVENTS):
        parts = _row_groups(folder, name, ROWS_AT_ONCE)
        first = next(parts, None)
        if first is not None:
            with _parquet_writer(folder, name, first.schema) as writer:
                writer.write_table(first)
                for part in parts:
                    writer.write_table(part)
    return {"total_energy_j": total_j, "rest_energy_j": rest_j, "requests_energy_j": requests_j}


@contextmanager
def _parquet_writer(folder: Path, name: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Write NAME.parquet beside NAME.arrows, which is removed once all is there."""
    # Times and counters grow by little from row to row.
    encoding = {field.name: "DELTA_BINARY_PACKED" for field in schema if field.type == pa.int64()}
    with (
        atomic_write(folder / f"{name}.parquet") as partial,
        pq.ParquetWriter(partial, schema, compression="zstd", use_dictionary=False, column_encoding=encoding) as writer,
    ):
        yield writer
    (folder / f"{name}.arrows").unlink(missing_ok=True)


def _row_groups(folder: Path, name: str, rows: int) -> Iterator[pa.Table]:
    """The rows of NAME.arrows in tables of at least `rows` rows; nothing where it cannot be read."""
    try:
        reader = ArrowLogReader(folder / f"{name}.arrows")
    except RunError:
        return
    yield from reader.row_groups(rows)


def _segments(folder: Path) -> Segments:
    segments = Segments()
    for part in _row_groups(folder, STEPS, ROWS_AT_ONCE):
        for name, column in zip(part.schema.names, part.columns, strict=True):
            values: array[Any] = getattr(segments, name)
            values.frombytes(np.ascontiguousarray(column.to_numpy()).tobytes())
    return segments


def _request(row: dict[str, Any]) -> BenchRequest:
    """A request again, as far as the ledger looks at it."""
    return BenchRequest(
        row["request_id"],
        row["prompt_tokens"],
        max(1, row["completion_tokens"]),
        prefills=row["prefills"],
        chunks=list(zip(row["chunk_step"], row["chunk_tokens"], row["chunk_pairs"], strict=True)),
        decodes=list(zip(row["decode_step"], row["decode_context"], row["decode_steps"], strict=True)),
    )
