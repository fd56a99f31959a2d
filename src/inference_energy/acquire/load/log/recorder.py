"""What a load process writes down of its requests: their log, and the counts for progress."""

from array import array
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from inference_energy.acquire.load.exchange.request import RequestRecord
from inference_energy.acquire.load.live import LiveCounts
from inference_energy.acquire.load.log.stream import ChunkLog, RowLog
from inference_energy.contracts import answers, requests

_values = attrgetter(*requests.SCHEMA.names)


class Recorder:
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
            self._answers = RowLog(self._folder / f"answers-{self._worker}.arrows", answers.SCHEMA)
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
