"""The sampler's log: an append-only Arrow IPC stream, later made into power.parquet.

A stream needs no footer, so what a killed sampler leaves can be read up to its last whole batch.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from inference_energy.acquire.power.base import Channel, PowerSource, Reading
from inference_energy.contracts import power
from inference_energy.contracts.tables import write_table
from inference_energy.errors import RunError

CLOCK_ANCHOR = "clock_anchor"
SOURCE = "source"

_LABELS = ("source", "device", "domain")


@dataclass(frozen=True, slots=True)
class CompactStats:
    """What a log held: rows, batches, and whether its last batch was cut off."""

    rows: int
    batches: int
    truncated: bool


class PowerStream:
    """Appends readings to the file, each time as one batch, which is then on its way to the disk.

    The columns of a batch are made all at once, which costs a tenth of making each row a mapping.

    Args:
        path: the file to make; its folder must be there.
        clock_anchor: one pair of monotonic and wall-clock time.
        sources: their descriptions, for the metadata.
        channels: those of the sources, for what they say of themselves.
    """

    def __init__(
        self,
        path: Path,
        clock_anchor: dict[str, int],
        sources: Sequence[PowerSource],
        channels: Sequence[Channel] = (),
    ) -> None:
        facts = {CLOCK_ANCHOR: clock_anchor, SOURCE: [_described(source, channels) for source in sources]}
        self._schema = power.SCHEMA.with_metadata({key: json.dumps(value) for key, value in facts.items()})
        self._file = path.open("wb", buffering=1 << 20)
        self._writer = pa.ipc.new_stream(self._file, self._schema)
        # The writer holds the schema back until the first batch: with an empty one, a log cut off at once is readable.
        self._writer.write_batch(pa.RecordBatch.from_pylist([], schema=self._schema))
        self._file.flush()

    def write(self, collected: Iterable[tuple[Channel, Sequence[Reading]]]) -> None:
        """Write readings, given by channel; called by one thread at a time."""
        groups = [(channel, readings) for channel, readings in collected if readings]
        if groups:
            self._writer.write_batch(_batch(groups, self._schema))
            self._file.flush()

    def close(self) -> None:
        """End the stream."""
        self._writer.close()
        self._file.close()


def _described(source: PowerSource, channels: Sequence[Channel]) -> dict[str, Any]:
    """A source and its devices; several channels of one device and domain say together what there is to say."""
    places: dict[tuple[str, str], dict[str, Any]] = {}
    for channel in channels:
        if channel.source == source.name:
            places.setdefault((channel.device, channel.domain), {}).update(channel.about)
    about = [{"device": device, "domain": domain, **facts} for (device, domain), facts in places.items()]
    return {**source.describe(), "channels": about}


def _batch(groups: Sequence[tuple[Channel, Sequence[Reading]]], schema: pa.Schema) -> pa.RecordBatch:
    """The readings of each channel as columns of the contract."""
    every = chain.from_iterable(readings for _, readings in groups)
    columns = dict(zip(Reading._fields, zip(*every, strict=True), strict=True))
    arrays = [
        pa.array(
            [getattr(channel, name) for channel, readings in groups for _ in readings]
            if name in _LABELS
            else columns[name],
            type=schema.field(name).type,
        )
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
