"""The names of the load processes' logs, for whoever does not read them.

The names of the load processes' logs, for whoever does not read them.

Append-only Arrow IPC streams.

A stream needs no footer, so what a killed process leaves is readable up to the last whole batch.

What a load process writes down of its requests: their log, and the counts for progress.

The logs of all load processes made into requests.parquet, chunks.parquet and answers.parquet.
"""

from array import array
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from inference_energy.acquire.load.http.request import RequestRecord
from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.contracts import requests
from inference_energy.contracts import requests as answers
from inference_energy.contracts import requests as chunks
from inference_energy.contracts.arrow_log import ArrowLog, LogStats, compact_logs, read_logs
from inference_energy.contracts.io import write_table
from inference_energy.errors import RunError


class RowLog:
    """Collects rows and writes them as one batch a flush; arguments as of `ArrowLog`."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._stream = ArrowLog(path, schema)
        self._rows: list[tuple[Any, ...]] = []

    def append(self, row: tuple[Any, ...]) -> None:
        """Add one row, its values in the schema's order; it reaches the file with the next flush."""
        self._rows.append(row)

    def flush(self) -> None:
        """Write the rows collected so far."""
        if self._rows:
            rows, self._rows = self._rows, []
            columns = zip(zip(*rows, strict=True), self._stream.schema, strict=True)
            self._stream.append([pa.array(values, column.type) for values, column in columns])

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
        self._stream = ArrowLog(path, requests.CHUNKS_SCHEMA)
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
        self._stream.append([ids, cells, times, counts, tokens])

    def close(self) -> None:
        """Write the rest and end the stream."""
        self.flush()
        self._stream.close()


def _empty() -> tuple["array[int]", ...]:
    return tuple(array("q") for _ in range(4))


_values = attrgetter(*requests.SCHEMA.names)


class RequestLogger:
    """Told by the client of each request; an `exchange.observer.Observer`.

    A request is logged when it has ended.

    Args:
        folder: where the logs are written.
        worker: which process this is.

    Attributes:
        counts: of the cell under way.
        lateness_ns: how long after it was due each request of that cell was sent.
    """

    def __init__(self, folder: Path, worker: int) -> None:
        self._folder = folder
        self._worker = worker
        self._requests = RowLog(folder / f"requests-{worker}.arrows", requests.SCHEMA)
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
            self._answers = RowLog(self._folder / f"answers-{self._worker}.arrows", answers.ANSWERS_SCHEMA)
        self._keep_answers = keep_answers
        self.counts = LiveCounts()
        self.lateness_ns = array("q")

    def sent(self, record: RequestRecord) -> None:
        """See `Observer`."""
        self.counts.sent += 1
        if record.sent_ns is not None:
            self.lateness_ns.append(record.sent_ns - record.scheduled_ns)

    def first_token(self, record: RequestRecord) -> None:
        """See `Observer`."""
        if record.first_token_ns is not None:
            self.counts.ttft.add(record.first_token_ns - record.scheduled_ns)

    def chunk(self, record: RequestRecord, timestamp_ns: int, events: int, completion_tokens: int | None) -> None:
        """See `Observer`."""
        if self._chunks is not None:
            self._chunks.append(record.request_id, record.cell, timestamp_ns, events, completion_tokens)

    def ended(self, record: RequestRecord, text: str | None) -> None:
        """See `Observer`."""
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


OPTIONAL = (("chunks", chunks.CHUNKS_SCHEMA), ("answers", answers.ANSWERS_SCHEMA))


def merge_request_logs(folder: Path, target: Path, **metadata: Any) -> LogStats:
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
    paths = _logs(folder, "requests")
    if not paths:
        raise RunError(f"{folder}: no log of requests")
    table, stats = read_logs(paths)
    table = table.sort_by([("scheduled_ns", "ascending"), ("request_id", "ascending")])
    write_table(target, table, requests.SCHEMA, **metadata)
    for name, schema in OPTIONAL:
        if paths := _logs(folder, name):
            stats.truncated += compact_logs(paths, beside(target, name), schema, **metadata).truncated
        else:
            beside(target, name).unlink(missing_ok=True)
    return stats


def beside(requests_file: Path, name: str) -> Path:
    """Where `chunks` or `answers` of a file of requests lie: chunks.parquet, of run-7.parquet run-7-chunks.parquet."""
    usual = requests_file.name == "requests.parquet"
    return requests_file.with_name(f"{name}.parquet" if usual else f"{requests_file.stem}-{name}.parquet")


def _logs(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}-*.arrows"), key=lambda path: int(path.stem.rpartition("-")[2]))
