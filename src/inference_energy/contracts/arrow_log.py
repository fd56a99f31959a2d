"""Append-only Arrow logs, and the Parquet files made from them.

A log is an Arrow IPC stream. It needs no footer, so the log of a killed process can be read up to its last whole batch.
Logs become Parquet when the process has ended: as one sorted table (`read_logs`, then `io.write_table`), or row group
by row group where a log may be larger than memory (`compact_logs`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inference_energy.contracts.io import atomic_write, schema_metadata
from inference_energy.errors import RunError

ROWS_PER_GROUP = 1 << 16


class ArrowLog:
    """A file to which batches are appended.

    Args:
        path: the file to make; its folder is made too.
        schema: of the batches.
        growing_dictionaries: whether the dictionaries of dictionary-encoded columns grow from batch to batch; then
            only their new entries are written.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, growing_dictionaries: bool = False) -> None:
        self.schema = schema
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb", buffering=1 << 20)
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=growing_dictionaries)
        self._writer = pa.ipc.new_stream(self._file, schema, options=options)
        # The writer holds the schema back until the first batch: with an empty one, a log cut off at once is readable.
        self.append([pa.array([], column.type) for column in schema])

    def append(self, columns: Sequence[pa.Array]) -> None:
        """Append one batch and hand it to the operating system.

        Args:
            columns: arrays of equal length in the order of the schema.
        """
        self._writer.write_batch(pa.RecordBatch.from_arrays(list(columns), schema=self.schema))
        self._file.flush()

    def close(self) -> None:
        """End the stream; a second call does nothing."""
        if not self._file.closed:
            self._writer.close()
            self._file.close()


class ArrowLogReader:
    """Iterates once over the batches of a log that hold rows, up to the place where it was cut off.

    Attributes:
        schema: of the batches, with the log's metadata.
        truncated: whether the last batch was cut off; known after the iteration.

    Raises:
        RunError: the log is missing, or was cut off before its schema was written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = pa.OSFile(str(path))
            self._stream = pa.ipc.open_stream(self._file)
        except FileNotFoundError as error:
            raise RunError(f"{path}: no such log") from error
        except (pa.ArrowException, OSError) as error:
            raise RunError(f"{path}: nothing can be read from this log: {error}") from error
        self.schema: pa.Schema = self._stream.schema
        self.truncated = False

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        with self._file:
            while True:
                try:
                    batch = self._stream.read_next_batch()
                    # Arrow reads damaged offsets as they stand, and would then read memory that is not the log's.
                    batch.validate(full=True)
                except StopIteration:
                    return
                except (pa.ArrowException, OSError):
                    self.truncated = True
                    return
                if batch.num_rows:
                    yield batch

    def row_groups(self, rows: int = ROWS_PER_GROUP, schema: pa.Schema | None = None) -> Iterator[pa.Table]:
        """Iterate over tables of at least `rows` rows, of which the last may be shorter.

        Args:
            rows: size of a table.
            schema: what each batch is cast to, one by one, because dictionaries may grow between batches.
        """
        tables: list[pa.Table] = []
        held_rows = 0
        for batch in self:
            table = pa.Table.from_batches([batch])
            tables.append(table if schema is None else table.cast(schema))
            held_rows += batch.num_rows
            if held_rows >= rows:
                yield pa.concat_tables(tables)
                tables, held_rows = [], 0
        if tables:
            yield pa.concat_tables(tables)


@dataclass(slots=True)
class LogStats:
    """Rows and batches of one or more logs, and the names of logs whose last batch was cut off."""

    rows: int = 0
    batches: int = 0
    truncated: list[str] = field(default_factory=list)


def read_logs(paths: Sequence[Path]) -> tuple[pa.Table, LogStats]:
    """Read logs of one schema into a table, in the order of `paths` (at least one).

    Raises:
        RunError: see `ArrowLogReader`.
    """
    stats = LogStats()
    batches: list[pa.RecordBatch] = []
    for path in paths:
        reader = ArrowLogReader(path)
        batches += reader
        if reader.truncated:
            stats.truncated.append(path.name)
    table = pa.Table.from_batches(batches, schema=reader.schema)
    stats.rows, stats.batches = table.num_rows, len(batches)
    return table, stats


def compact_logs(paths: Sequence[Path], target: Path, schema: pa.Schema, **metadata: Any) -> LogStats:
    """Write the rows of logs, in their order, as one Parquet file; only one row group is held in memory.

    Args:
        paths: the logs; a row group never holds rows of two.
        target: the file to make; its folder is made too.
        schema: the contract that the rows are cast to.
        metadata: for the file's schema, as for `io.write_table`.

    Raises:
        RunError: see `ArrowLogReader`.
    """
    stats = LogStats()
    stamped = schema.with_metadata(schema_metadata(**metadata))
    with atomic_write(target) as partial, pq.ParquetWriter(partial, stamped, compression="zstd") as writer:
        for path in paths:
            reader = ArrowLogReader(path)
            for table in reader.row_groups(schema=stamped):
                stats.rows += table.num_rows
                writer.write_table(table)
            if reader.truncated:
                stats.truncated.append(path.name)
    return stats
