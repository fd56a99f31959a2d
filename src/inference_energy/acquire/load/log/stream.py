"""Append-only Arrow IPC streams.

A stream needs no footer, so what a killed process leaves is readable up to the last whole batch.
"""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from inference_energy.contracts import chunks


class ArrowStream:
    """A file to which batches are appended.

    Args:
        path: the file to make; its folder must be there.
        schema: of the batches.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self._file = path.open("wb", buffering=1 << 20)
        self._writer = pa.ipc.new_stream(self._file, schema)
        # The writer holds the schema back until the first batch: with an empty one, a log cut off at once is readable.
        self.write([pa.array([], column.type) for column in schema])

    def write(self, columns: Sequence[pa.Array]) -> None:
        """Append one batch and hand it to the operating system."""
        self._writer.write_batch(pa.RecordBatch.from_arrays(list(columns), schema=self.schema))
        self._file.flush()

    def close(self) -> None:
        """End the stream."""
        self._writer.close()
        self._file.close()


class RowLog:
    """Collects rows and writes them as one batch a flush; arguments as of `ArrowStream`."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._stream = ArrowStream(path, schema)
        self._rows: list[tuple[Any, ...]] = []

    def append(self, row: tuple[Any, ...]) -> None:
        """Add one row, its values in the schema's order; it reaches the file with the next flush."""
        self._rows.append(row)

    def flush(self) -> None:
        """Write the rows collected so far."""
        if self._rows:
            rows, self._rows = self._rows, []
            columns = zip(zip(*rows, strict=True), self._stream.schema, strict=True)
            self._stream.write([pa.array(values, column.type) for values, column in columns])

    def close(self) -> None:
        """Write the rest and end the stream."""
        self.flush()
        self._stream.close()


class ChunkLog:
    """A log of arrivals. There are many of them: they wait in arrays, which become columns without a copy.

    Args:
        path: the file to make; its folder must be there.
    """

    def __init__(self, path: Path) -> None:
        self._stream = ArrowStream(path, chunks.SCHEMA)
        self._cell = ""
        self._columns = _empty()

    def append(self, request_id: int, cell: str, timestamp_ns: int, events: int, tokens: int | None) -> None:
        """Add one arrival."""
        if cell != self._cell:
            self.flush()
            self._cell = cell
        ids, times, counts, cumulative = self._columns
        ids.append(request_id)
        times.append(timestamp_ns)
        counts.append(events)
        cumulative.append(-1 if tokens is None else tokens)

    def flush(self) -> None:
        """Write the arrivals collected so far."""
        columns, self._columns = self._columns, _empty()
        if not columns[0]:
            return
        ids, times, counts = (
            pa.Array.from_buffers(pa.int64(), len(column), [None, pa.py_buffer(column)]) for column in columns[:3]
        )
        tokens = pa.array([None if value < 0 else value for value in columns[3]], pa.int64())
        cells = pa.repeat(pa.scalar(self._cell, pa.string()), len(columns[0]))
        self._stream.write([ids, cells, times, counts, tokens])

    def close(self) -> None:
        """Write the rest and end the stream."""
        self.flush()
        self._stream.close()


def _empty() -> tuple["array[int]", ...]:
    return tuple(array("q") for _ in range(4))
