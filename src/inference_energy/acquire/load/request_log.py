"""The logs of load processes: how each is written, and how they become Parquet files.

Each process appends to Arrow logs of its own, `requests-W.arrows` and on demand `chunks-W.arrows` and
`answers-W.arrows`; merged they are requests.parquet, chunks.parquet and answers.parquet.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.contracts.arrow_log import ArrowLog, LogStats, compact_logs, read_logs
from inference_energy.contracts.io import atomic_write, read_metadata, read_table, write_table
from inference_energy.contracts.outside import clean_text
from inference_energy.contracts.requests import ANSWERS_SCHEMA, CHUNKS_SCHEMA, SCHEMA, RequestRecord
from inference_energy.errors import RunError

OPTIONAL = (("chunks", CHUNKS_SCHEMA), ("answers", ANSWERS_SCHEMA))

_values = attrgetter(*SCHEMA.names)


class RowLog:
    """A log of rows, written as one batch a flush.

    Args:
        path: the file to make.
        schema: of the rows.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._log = ArrowLog(path, schema)
        self._rows: list[tuple[Any, ...]] = []

    def append(self, row: tuple[Any, ...]) -> None:
        """Add one row, its values in the schema's order; it reaches the file with the next flush."""
        self._rows.append(row)

    def flush(self) -> None:
        """Write the rows collected so far.

        Raises:
            OSError, pyarrow.ArrowException: they cannot be written; they are in no file then.
        """
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        try:
            columns = self._columns(rows)
        except UnicodeEncodeError:
            # What servers send is clean; this is for names and texts of users.
            columns = self._columns([tuple(clean_text(v) if isinstance(v, str) else v for v in row) for row in rows])
        self._log.append(columns)

    def close(self) -> None:
        """Write the rest and end the log; raises as `flush` does."""
        try:
            self.flush()
        finally:
            self._log.close()

    def _columns(self, rows: Sequence[tuple[Any, ...]]) -> list[pa.Array]:
        columns = zip(zip(*rows, strict=True), self._log.schema, strict=True)
        return [pa.array(values, column.type) for values, column in columns]


class ChunkLog:
    """A log of chunks. They are many, so they wait in arrays, which become columns without a copy.

    Args:
        path: the file to make.
    """

    def __init__(self, path: Path) -> None:
        self._log = ArrowLog(path, CHUNKS_SCHEMA)
        self._cell = ""
        self._columns = _empty_columns()

    def append(self, request_id: int, cell: str, timestamp_ns: int, events: int, tokens: int | None) -> None:
        """Add one chunk."""
        if cell != self._cell:
            self.flush()
            self._cell = cell
        ids, times, counts, cumulative = self._columns
        ids.append(request_id)
        times.append(timestamp_ns)
        counts.append(events)
        cumulative.append(-1 if tokens is None else tokens)

    def flush(self) -> None:
        """Write the chunks collected so far."""
        columns, self._columns = self._columns, _empty_columns()
        if not columns[0]:
            return
        ids, times, counts = (
            pa.Array.from_buffers(pa.int64(), len(column), [None, pa.py_buffer(column)]) for column in columns[:3]
        )
        tokens = pa.array([None if value < 0 else value for value in columns[3]], pa.int64())
        cells = pa.repeat(pa.scalar(self._cell, pa.string()), len(columns[0]))
        self._log.append([ids, cells, times, counts, tokens])

    def close(self) -> None:
        """Write the rest and end the log."""
        try:
            self.flush()
        finally:
            self._log.close()


def _empty_columns() -> tuple["array[int]", ...]:
    return tuple(array("q") for _ in range(4))


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
        """Reset the counts, and make the logs that the cell needs."""
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
            self.counts.note_token(record.first_token_ns)

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
        if record.last_token_ns is not None:
            counts.note_token(record.last_token_ns)
        if record.status == "ok" and record.end_ns is not None:
            counts.note_token(record.end_ns)
        elif record.sent_ns is not None and record.end_ns is not None:
            counts.note_unanswered(record.sent_ns, record.end_ns)
        counts.prompt_tokens += record.prompt_tokens or 0
        counts.completion_tokens += record.completion_tokens or 0
        self._requests.append(_values(record))
        # The client also keeps the answers of conversations for the next turn; those are not logged.
        if text is not None and self._keep_answers and self._answers is not None:
            self._answers.append((record.request_id, record.cell, text))

    def flush(self) -> None:
        """Write everything collected so far.

        Raises:
            RunError: a log cannot be written.
        """
        with self._writing():
            for log in self._logs():
                log.flush()

    def close(self) -> None:
        """Write the rest and end the logs, also those after one that cannot be written.

        Raises:
            RunError: a log cannot be written.
        """
        with self._writing(), ExitStack() as logs:
            for log in self._logs():
                logs.callback(log.close)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(f"the request log in {self._folder} cannot be written: {error.strerror}") from error

    def _logs(self) -> Sequence[RowLog | ChunkLog]:
        return [log for log in (self._requests, self._chunks, self._answers) if log is not None]


def merge_request_logs(
    folder: Path, target: Path, counted: Mapping[str, int] | None = None, **metadata: Any
) -> LogStats:
    """Merge the readable part of the logs in `folder` into `target` and, see `beside`, into files next to it.

    The requests are sorted by `scheduled_ns` and `request_id`. The other files are written only where there are such
    logs, else removed. They stay in the order of the logs, since sorting them may need more memory than there is.

    Args:
        folder: holds requests-W.arrows, and perhaps chunks-W.arrows and answers-W.arrows.
        target: the file of requests.
        counted: requests by cell, as the processes counted them; each must have a row.
        metadata: for the files' metadata, such as `clock_anchor`.

    Returns:
        The rows and batches of requests, and the names of all logs whose last batch was cut off.

    Raises:
        RunError: there is no log, nothing of one can be read, or rows are missing.
    """
    paths = _worker_logs(folder, "requests")
    if not paths:
        raise RunError(f"{folder}: no log of requests")
    table, stats = read_logs(paths)
    _check_rows(folder, table, counted or {})
    table = table.sort_by([("scheduled_ns", "ascending"), ("request_id", "ascending")])
    write_table(target, table, SCHEMA, **metadata)
    for name, schema in OPTIONAL:
        if paths := _worker_logs(folder, name):
            stats.truncated += compact_logs(paths, beside(target, name), schema, **metadata).truncated
        else:
            beside(target, name).unlink(missing_ok=True)
    return stats


def _check_rows(folder: Path, table: pa.Table, counted: Mapping[str, int]) -> None:
    written = {entry["values"]: entry["counts"] for entry in table["cell"].value_counts().to_pylist()}
    for cell, requests in counted.items():
        if (rows := written.get(cell, 0)) != requests:
            raise RunError(
                f"{folder}: the log has {rows:,} of the {requests:,} requests of {cell}, so no figure of it can be "
                "right; look for errors of the disk and measure again"
            )


def beside(requests_file: Path, name: str) -> Path:
    """Return the file of `chunks` or `answers` of a file of requests.

    It is chunks.parquet, or run-7-chunks.parquet for run-7.parquet.
    """
    usual = requests_file.name == "requests.parquet"
    return requests_file.with_name(f"{name}.parquet" if usual else f"{requests_file.stem}-{name}.parquet")


def _worker_logs(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}-*.arrows"), key=lambda path: int(path.stem.rpartition("-")[2]))


def write_csv(requests: Path, target: Path) -> None:
    """Write a requests.parquet as CSV.

    It begins with `timestamp` (when sent, Unix time in s), `prompt_tokens`, `completion_tokens` and `latency` (from
    sending to the end, s); the contract's columns follow.

    Raises:
        InputError: `requests` is missing or is no such file.
    """
    rows = read_table(requests, SCHEMA)
    anchor = read_metadata(requests)["clock_anchor"]
    offset_ns = anchor["unix_ns"] - anchor["monotonic_ns"]
    tokens = ["prompt_tokens", "completion_tokens"]
    table = rows[tokens].copy()
    table.insert(0, "timestamp", (rows["sent_ns"] + offset_ns).astype("Float64") / 1e9)
    table["latency"] = (rows["end_ns"] - rows["sent_ns"]).astype("Float64") / 1e9
    table = table.join(rows.drop(columns=tokens))
    with atomic_write(target) as partial:
        table.to_csv(partial, index=False, float_format="%.6f")
