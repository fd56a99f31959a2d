"""The sampler's log: an append-only Arrow IPC stream, later made into power.parquet.

A stream needs no footer, so what a killed sampler leaves can be read up to its last whole batch.
"""

import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from inference_energy.acquire.power.base import Channel, PowerSource, Reading
from inference_energy.contracts import power
from inference_energy.contracts.tables import write_table
from inference_energy.errors import RunError

CLOCK_ANCHOR = "clock_anchor"
SOURCE = "source"


@dataclass(frozen=True, slots=True)
class CompactStats:
    """What a log held: rows, batches, and whether its last batch was cut off."""

    rows: int
    batches: int
    truncated: bool


class PowerStream:
    """Collects rows from any thread and appends them to the file as one batch a flush.

    Args:
        path: the file to make; its folder must be there.
        clock_anchor: one pair of monotonic and wall-clock time.
        sources: their descriptions, for the metadata.
    """

    def __init__(self, path: Path, clock_anchor: dict[str, int], sources: Sequence[PowerSource]) -> None:
        facts = {CLOCK_ANCHOR: clock_anchor, SOURCE: [source.describe() for source in sources]}
        self._schema = power.SCHEMA.with_metadata({key: json.dumps(value) for key, value in facts.items()})
        self._rows: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._file = path.open("wb", buffering=1 << 20)
        self._writer = pa.ipc.new_stream(self._file, self._schema)
        # The writer holds the schema back until the first batch: with an empty one, a log cut off at once is readable.
        self._writer.write_batch(pa.RecordBatch.from_pylist([], schema=self._schema))
        self._file.flush()

    def append(self, channel: Channel, reading: Reading) -> None:
        """Add one row; it reaches the file with the next flush."""
        row = {"source": channel.source, "device": channel.device, "domain": channel.domain, **asdict(reading)}
        with self._lock:
            self._rows.append(row)

    def flush(self) -> None:
        """Write the rows collected so far."""
        with self._lock:
            rows, self._rows = self._rows, []
        if rows:
            self._writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=self._schema))
            self._file.flush()

    def close(self) -> None:
        """Write the rest and end the stream."""
        self.flush()
        self._writer.close()
        self._file.close()


def read_stream(path: Path) -> tuple[pa.Table, CompactStats]:
    """Read a log, also one that was cut off, sorted by time.

    Raises:
        RunError: the file is missing, or was cut off before anything was written.
    """
    batches: list[pa.RecordBatch] = []
    truncated = False
    try:
        with pa.OSFile(str(path)) as file:
            reader = pa.ipc.open_stream(file)
            while True:
                try:
                    batches.append(reader.read_next_batch())
                except StopIteration:
                    break
                except (pa.ArrowInvalid, OSError):
                    truncated = True
                    break
            table = pa.Table.from_batches(batches, schema=reader.schema)
    except FileNotFoundError as error:
        raise RunError(f"{path}: no such power log") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise RunError(f"{path}: no power log can be read from it: {error}") from error
    return table.sort_by("timestamp_ns"), CompactStats(
        table.num_rows, sum(batch.num_rows > 0 for batch in batches), truncated
    )


def compact(stream_path: Path, parquet_path: Path) -> CompactStats:
    """Make power.parquet from a log, keeping its metadata.

    Raises:
        RunError: the log is missing or empty of even its schema.
    """
    table, stats = read_stream(stream_path)
    facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    write_table(parquet_path, table, power.SCHEMA, **facts)
    return stats
