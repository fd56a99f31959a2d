"""The log of a server's metrics: an append-only Arrow stream, later made into server_metrics.parquet.

A stream needs no footer, so what a killed process leaves can be read up to its last whole scrape. Names and labels are
written once, when they first come up; a row is 24 bytes.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inference_energy.acquire.server.metrics_page import Series
from inference_energy.contracts.server_metrics import SCHEMA
from inference_energy.contracts.tables import schema_metadata
from inference_energy.errors import RunError

_WORDS = pa.dictionary(pa.int32(), pa.string())
_STREAMED = pa.schema(
    [("timestamp_ns", pa.int64()), ("name", _WORDS), ("labels", _WORDS), ("value", pa.float64())],
)
ROWS_OF_A_GROUP = 1 << 16


class MetricsLog:
    """A file to which scrapes are appended.

    Args:
        path: the file to make; its folder is made too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb", buffering=1 << 18)
        self._writer = pa.ipc.new_stream(
            self._file, _STREAMED, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
        )
        self._names, self._labels = pa.array([], pa.string()), pa.array([], pa.string())
        # The writer holds the schema back until the first batch: with an empty one, a log cut off at once is readable.
        self.append(0, [], [], [])

    def append(
        self, timestamp_ns: int, series: Sequence[Series], numbers: Sequence[int], values: Sequence[float]
    ) -> None:
        """Append one scrape as a batch and hand it to the operating system.

        Args:
            timestamp_ns: its time.
            series: all series so far; only ever added to.
            numbers: positions in `series`.
            values: one for each of `numbers`.
        """
        if len(series) > len(self._names):
            added = series[len(self._names) :]
            # Each series has its own entry, also where it shares a name, so both columns have the same indices.
            self._names = pa.concat_arrays([self._names, pa.array([one.name for one in added], pa.string())])
            self._labels = pa.concat_arrays([self._labels, pa.array([one.labels for one in added], pa.string())])
        indices = pa.array(numbers, pa.int32())
        columns = [
            pa.repeat(pa.scalar(timestamp_ns, pa.int64()), len(numbers)),
            pa.DictionaryArray.from_arrays(indices, self._names),
            pa.DictionaryArray.from_arrays(indices, self._labels),
            pa.array(values, pa.float64()),
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=_STREAMED))
        self._file.flush()

    def close(self) -> None:
        """End the stream; a second call does nothing."""
        if not self._file.closed:
            self._writer.close()
            self._file.close()


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a log held: rows, and whether its last batch was cut off."""

    rows: int
    truncated: bool


def compact(log: Path, target: Path, **metadata: Any) -> Compacted:
    """Make server_metrics.parquet from a log, a part at a time; `metadata` is for the file's schema.

    Raises:
        RunError: the log is missing, or was cut off before anything was written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    stamped = SCHEMA.with_metadata(schema_metadata(**metadata))
    rows, cut_off = 0, [False]
    try:
        with pq.ParquetWriter(partial, stamped, compression="zstd") as writer:
            for table in _tables(log, cut_off):
                rows += table.num_rows
                writer.write_table(table.cast(stamped))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return Compacted(rows, cut_off[0])


def _tables(log: Path, cut_off: list[bool]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for batch in _batches(log, cut_off):
        # Its dictionaries grow from batch to batch, so each is decoded by itself.
        waiting.append(pa.Table.from_batches([batch]).cast(SCHEMA))
        if sum(table.num_rows for table in waiting) >= ROWS_OF_A_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _batches(log: Path, cut_off: list[bool]) -> Iterator[pa.RecordBatch]:
    """The batches up to where the log was cut off, which is then noted."""
    try:
        with pa.OSFile(str(log)) as file:
            reader = pa.ipc.open_stream(file)
            while True:
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
                except (pa.ArrowInvalid, OSError):
                    cut_off[0] = True
                    return
                if batch.num_rows:
                    yield batch
    except FileNotFoundError as error:
        raise RunError(f"{log}: no such log of the server's metrics") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise RunError(f"{log}: nothing can be read from it: {error}") from error
