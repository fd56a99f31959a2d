"""Record that a live server keeps of itself on disk: every step, every request, every token it sent.

While the server lives, three Arrow streams grow by one batch at a time, so a crash loses only what came since the last
batch. At an orderly end they become Parquet files, and each request gets its energies from the ledger. `truth_files`
reads either form.
"""

import asyncio
import json
import time
from array import array
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from inference_energy.bench.live.live_request import LiveRequest, TruthSink
from inference_energy.bench.live.truth_files import EVENTS, REQUEST_SCHEMA, REQUESTS, SERVER, STEPS, finish
from inference_energy.bench.truth.engine import BenchEngine
from inference_energy.bench.truth.ledger import Segments
from inference_energy.contracts.arrow_log import ArrowLog
from inference_energy.contracts.io import atomic_write

FLUSH_S = 0.5

_COLUMN_TYPES = {"q": np.int64, "d": np.float64}


class TruthWriter(TruthSink):
    """Writer of a server's truth into a folder, with a thread of its own.

    Args:
        folder: made if it is not there.
        engine: whose steps.
        server: what the server is, for `server.json`.
    """

    def __init__(self, folder: Path, engine: BenchEngine, server: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._engine = engine
        self._server = dict(server)
        self._steps_written = 0
        self._events = _new_events()
        self._requests: list[dict[str, Any]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="truth")
        self._streams: dict[str, ArrowLog] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._note(SERVER, self._server)
        self._append = tuple(column.append for column in self._events.values())
        self._pending: list[Future[None]] = []

    def start(self) -> None:
        """Write what is new, and again every half second."""
        self.flush()
        self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.start)

    def sent(self, request_id: int, token: int, due_ns: int, sent_ns: int) -> None:
        """See `TruthSink`."""
        ids, tokens, due, sent = self._append
        ids(request_id)
        tokens(token)
        due(due_ns)
        sent(sent_ns)

    def ended(self, request: LiveRequest) -> None:
        """Note that a request left the engine."""
        self._requests.append(
            {
                "request_id": request.request_id,
                "name": request.name,
                "arrival_ns": request.arrival_ns,
                "first_token_ns": request.first_token_ns or None,
                "last_token_ns": request.last_token_ns or None,
                "prompt_tokens": request.prompt_tokens,
                "cached_tokens": request.cached_tokens,
                "completion_tokens": request.generated,
                "delivered_tokens": request.delivered,
                "outcome": request.outcome,
                "preemptions": request.preemptions,
                "prefills": request.prefills,
                "chunk_step": [chunk[0] for chunk in request.chunks],
                "chunk_tokens": [chunk[1] for chunk in request.chunks],
                "chunk_pairs": [chunk[2] for chunk in request.chunks],
                "decode_step": [decode[0] for decode in request.decodes],
                "decode_context": [decode[1] for decode in request.decodes],
                "decode_steps": [decode[2] for decode in request.decodes],
            }
        )

    def close(self, further: Mapping[str, Any]) -> None:
        """Write what is left, and turn the streams into Parquet files.

        Args:
            further: what to add to `server.json`.
        """
        if self._timer is not None:
            self._timer.cancel()
        self.flush()
        self._thread.shutdown(wait=True)
        for written in self._pending:
            written.result()
        for stream in self._streams.values():
            stream.close()
        totals = finish(self._folder, self._engine.physics)
        self._note(SERVER, self._server | dict(further) | totals | {"ended_ns": time.monotonic_ns()})

    def flush(self) -> None:
        """Hand what is new to the writing thread.

        Raises:
            OSError: what was handed over earlier could not be written.
        """
        while self._pending and self._pending[0].done():  # the thread takes them in order
            self._pending[0].result()
            del self._pending[0]
        begin, end = self._steps_written, len(self._engine.segments)
        if end > begin:
            self._steps_written = end
            columns = {name: column[begin:end] for name, column in _columns(self._engine.segments)}
            self._pending.append(self._thread.submit(self._write, STEPS, columns))
        if self._events["request_id"]:
            events, self._events = self._events, _new_events()
            self._append = tuple(column.append for column in self._events.values())
            self._pending.append(self._thread.submit(self._write, EVENTS, events))
        if self._requests:
            requests, self._requests = self._requests, []
            self._pending.append(self._thread.submit(self._write_requests, requests))

    def _write(self, name: str, columns: "Mapping[str, array[Any]]") -> None:
        arrays = [pa.array(np.frombuffer(column, dtype=_COLUMN_TYPES[column.typecode])) for column in columns.values()]
        self._append_batch(name, pa.RecordBatch.from_arrays(arrays, names=list(columns)))

    def _write_requests(self, requests: list[dict[str, Any]]) -> None:
        self._append_batch(REQUESTS, pa.RecordBatch.from_pylist(requests, schema=REQUEST_SCHEMA))

    def _append_batch(self, name: str, batch: pa.RecordBatch) -> None:
        if name not in self._streams:
            self._streams[name] = ArrowLog(self._folder / f"{name}.arrows", batch.schema)
        self._streams[name].append(batch.columns)

    def _note(self, name: str, content: Mapping[str, Any]) -> None:
        with atomic_write(self._folder / name) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n")


def _new_events() -> "dict[str, array[int]]":
    return {name: array("q") for name in ("request_id", "token", "due_ns", "sent_ns")}


def _columns(segments: Segments) -> "list[tuple[str, array[Any]]]":
    return [(name, column) for name, column in vars(segments).items() if isinstance(column, array)]
