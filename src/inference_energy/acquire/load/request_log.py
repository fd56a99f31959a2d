"""The logs of load processes: what each writes of its requests, and their merging into Parquet files.

The logs are append-only Arrow IPC streams. A stream needs no footer, so that the log of a killed process is readable up
to the last whole batch. They become requests.parquet, chunks.parquet and answers.parquet.
"""

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.contracts.io import read_metadata, read_table, schema_metadata, write_table
from inference_energy.contracts.requests import ANSWERS_SCHEMA, CHUNKS_SCHEMA, SCHEMA, RequestRecord
from inference_energy.errors import RunError


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
        self._stream = ArrowStream(path, CHUNKS_SCHEMA)
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


_values = attrgetter(*SCHEMA.names)


class RequestLogger:
    """The observer of a process's requests: logs each when it has ended, and counts.

    Args:
        folder: where the logs are written.
        worker: number of this process.

    Attributes:
        counts: of the current cell.
        lateness_ns: the send lag of each request of that cell, from due to sent.
    """

    def __init__(self, folder: Path, worker: int) -> None:
        self._folder = folder
        self._worker = worker
        self._requests = RowLog(folder / f"requests-{worker}.arrows", SCHEMA)
        self._chunks: ChunkLog | None = None
        self._answers: RowLog | None = None
        self._keep_answers = False
        self.counts = LiveCounts()
        self.lateness_ns: array[int] = array("q")

    def begin_cell(self, *, chunk_times: bool, keep_answers: bool) -> None:
        """Count from nothing, and make the logs that the cell asks for."""
        if chunk_times and self._chunks is None:
            self._chunks = ChunkLog(self._folder / f"chunks-{self._worker}.arrows")
        if keep_answers and self._answers is None:
            self._answers = RowLog(self._folder / f"answers-{self._worker}.arrows", ANSWERS_SCHEMA)
        self._keep_answers = keep_answers
        self.counts = LiveCounts()
        self.lateness_ns = array("q")

    def sent(self, record: RequestRecord) -> None:
        """See `RequestObserver`."""
        self.counts.sent += 1
        if record.sent_ns is not None:
            self.lateness_ns.append(record.sent_ns - record.scheduled_ns)

    def first_token(self, record: RequestRecord) -> None:
        """See `RequestObserver`."""
        if record.first_token_ns is not None:
            self.counts.ttft.add(record.first_token_ns - record.scheduled_ns)

    def chunk(self, record: RequestRecord, timestamp_ns: int, events: int, completion_tokens: int | None) -> None:
        """See `RequestObserver`."""
        if self._chunks is not None:
            self._chunks.append(record.request_id, record.cell, timestamp_ns, events, completion_tokens)

    def ended(self, record: RequestRecord, text: str | None) -> None:
        """See `RequestObserver`."""
        counts = self.counts
        if record.sent_ns is not None:
            counts.ended += 1
        if record.status == "ok":
            counts.ok += 1
        elif record.status == "failed":
            counts.failed += 1
            counts.first_error = counts.first_error or record.error
        elif record.status == "aborted":
            counts.aborted += 1
        else:
            counts.skipped += 1
        counts.prompt_tokens += record.prompt_tokens or 0
        counts.completion_tokens += record.completion_tokens or 0
        self._requests.append(_values(record))
        # Where answers go on in their conversation the client keeps them too, for itself.
        if text is not None and self._keep_answers and self._answers is not None:
            self._answers.append((record.request_id, record.cell, text))

    def flush(self) -> None:
        """Bring what was collected to the files."""
        for log in self._logs():
            log.flush()

    def close(self) -> None:
        """End the logs."""
        for log in self._logs():
            log.close()

    def _logs(self) -> Sequence[RowLog | ChunkLog]:
        return [log for log in (self._requests, self._chunks, self._answers) if log is not None]


OPTIONAL = (("chunks", CHUNKS_SCHEMA), ("answers", ANSWERS_SCHEMA))
ROWS_OF_A_GROUP = 1 << 16


@dataclass(frozen=True, slots=True)
class MergedLogs:
    """What the logs held: rows of requests, and the names of logs whose last batch was cut off."""

    rows: int
    truncated: list[str]


def merge_request_logs(folder: Path, target: Path, **metadata: Any) -> MergedLogs:
    """Write what is readable of the logs in `folder` into `target` and, see `beside`, next to it.

    The requests are sorted by `scheduled_ns` and `request_id`. The other files are written only where there are logs of
    them, else removed. They stay in the order of the logs: they can be larger than the memory one would sort them in.

    Args:
        folder: holds requests-W.arrows, and perhaps chunks-W.arrows and answers-W.arrows.
        target: the file of requests.
        metadata: for the files' metadata, such as `clock_anchor`.

    Raises:
        RunError: there is no log, or nothing of one can be read.
    """
    truncated: list[str] = []
    paths = _logs(folder, "requests")
    if not paths:
        raise RunError(f"{folder}: no log of requests")
    batches = [batch for path in paths for batch in _batches(path, truncated)]
    table = pa.Table.from_batches(batches, schema=SCHEMA)
    table = table.sort_by([("scheduled_ns", "ascending"), ("request_id", "ascending")])
    write_table(target, table, SCHEMA, **metadata)
    for name, schema in OPTIONAL:
        if paths := _logs(folder, name):
            _append_all(paths, beside(target, name), schema, truncated, metadata)
        else:
            beside(target, name).unlink(missing_ok=True)
    return MergedLogs(table.num_rows, truncated)


def beside(requests_file: Path, name: str) -> Path:
    """Where `chunks` or `answers` of a file of requests lie: chunks.parquet, of run-7.parquet run-7-chunks.parquet."""
    usual = requests_file.name == "requests.parquet"
    return requests_file.with_name(f"{name}.parquet" if usual else f"{requests_file.stem}-{name}.parquet")


def _logs(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}-*.arrows"), key=lambda path: int(path.stem.rpartition("-")[2]))


def _batches(path: Path, truncated: list[str]) -> Iterator[pa.RecordBatch]:
    """The batches of a log up to where it was cut off."""
    with pa.OSFile(str(path)) as file:
        try:
            reader = pa.ipc.open_stream(file)
        except (pa.ArrowInvalid, OSError) as error:
            raise RunError(f"{path}: nothing can be read from it: {error}") from error
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
            except (pa.ArrowInvalid, OSError):
                truncated.append(path.name)
                return
            if batch.num_rows:
                yield batch


def _append_all(
    paths: list[Path], target: Path, schema: pa.Schema, truncated: list[str], metadata: dict[str, Any]
) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        stamped = schema.with_metadata(schema_metadata(**metadata))
        with pq.ParquetWriter(partial, stamped, compression="zstd") as writer:
            for path in paths:
                waiting: list[pa.RecordBatch] = []
                for batch in _batches(path, truncated):
                    waiting.append(batch)
                    if sum(one.num_rows for one in waiting) >= ROWS_OF_A_GROUP:
                        writer.write_table(pa.Table.from_batches(waiting).cast(stamped))
                        waiting = []
                if waiting:
                    writer.write_table(pa.Table.from_batches(waiting).cast(stamped))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_csv(requests: Path, target: Path) -> None:
    """Write a requests.parquet as CSV.

    It begins with `timestamp` (when sent, Unix time in s), `prompt_tokens`, `completion_tokens` and `latency` (from
    sending to the end, s); the contract's columns follow.

    Raises:
        InputError: `requests` is missing or no such file.
    """
    rows = read_table(requests, SCHEMA)
    anchor = read_metadata(requests)["clock_anchor"]
    offset_ns = anchor["unix_ns"] - anchor["monotonic_ns"]
    tokens = ["prompt_tokens", "completion_tokens"]
    table = rows[tokens].copy()
    table.insert(0, "timestamp", (rows["sent_ns"] + offset_ns).astype("Float64") / 1e9)
    table["latency"] = (rows["end_ns"] - rows["sent_ns"]).astype("Float64") / 1e9
    table = table.join(rows.drop(columns=tokens))
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    table.to_csv(partial, index=False, float_format="%.6f")
    partial.replace(target)
