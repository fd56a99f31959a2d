"""The sampler's log: an append-only Arrow IPC stream, later made into power.parquet.

A stream needs no footer, so what a killed sampler leaves can be read up to its last whole batch.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import pyarrow as pa

from inference_energy.acquire.power.base import Channel, PowerSource, Reading
from inference_energy.contracts import power
from inference_energy.contracts.tables import write_table
from inference_energy.errors import RunError

CLOCK_ANCHOR = "clock_anchor"
SOURCE = "source"

_LABELS = ("source", "device", "domain")
_READ = tuple(name for name in power.SCHEMA.names if name not in _LABELS)
_values = attrgetter(*_READ)


@dataclass(frozen=True, slots=True)
class CompactStats:
    """What a log held: rows, batches, and whether its last batch was cut off."""

    rows: int
    batches: int
    truncated: bool


class PowerStream:
    """Collects rows from any thread and appends them to the file as one batch a flush.

    Rows wait as they came, in one list to which threads append without a lock; columns are made in `flush`, all at
    once, which costs a tenth of making each row a mapping.

    Args:
        path: the file to make; its folder must be there.
        clock_anchor: one pair of monotonic and wall-clock time.
        sources: their descriptions, for the metadata.
    """

    def __init__(self, path: Path, clock_anchor: dict[str, int], sources: Sequence[PowerSource]) -> None:
        facts = {CLOCK_ANCHOR: clock_anchor, SOURCE: [source.describe() for source in sources]}
        self._schema = power.SCHEMA.with_metadata({key: json.dumps(value) for key, value in facts.items()})
        self._rows: list[tuple[Channel, Reading]] = []
        self._file = path.open("wb", buffering=1 << 20)
        self._writer = pa.ipc.new_stream(self._file, self._schema)
        # The writer holds the schema back until the first batch: with an empty one, a log cut off at once is readable.
        self._writer.write_batch(pa.RecordBatch.from_pylist([], schema=self._schema))
        self._file.flush()

    def append(self, channel: Channel, reading: Reading) -> None:
        """Add one row; it reaches the file with the next flush."""
        self._rows.append((channel, reading))

    def flush(self) -> None:
        """Write the rows collected so far; called by one thread at a time."""
        count = len(self._rows)
        if not count:
            return
        rows = self._rows[:count]
        del self._rows[:count]  # what was appended meanwhile stands behind these
        self._writer.write_batch(_batch(rows, self._schema))
        self._file.flush()

    def close(self) -> None:
        """Write the rest and end the stream."""
        self.flush()
        self._writer.close()
        self._file.close()


def _batch(rows: Sequence[tuple[Channel, Reading]], schema: pa.Schema) -> pa.RecordBatch:
    """The rows as columns of the contract."""
    codes: dict[Channel, int] = {}
    places = pa.array([codes.setdefault(channel, len(codes)) for channel, _ in rows], pa.int32())
    columns = dict(zip(_READ, zip(*(_values(reading) for _, reading in rows), strict=True), strict=True))
    arrays = [
        pa.array([getattr(channel, name) for channel in codes], type=pa.string()).take(places)
        if name in _LABELS
        else pa.array(columns[name], type=schema.field(name).type)
        for name in schema.names
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


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
