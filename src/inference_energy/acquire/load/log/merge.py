"""The logs of all load processes made into requests.parquet, chunks.parquet and answers.parquet."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inference_energy.contracts import answers, chunks, requests
from inference_energy.contracts.tables import schema_metadata, write_table
from inference_energy.errors import RunError

OPTIONAL = (("chunks", chunks.SCHEMA), ("answers", answers.SCHEMA))
ROWS_OF_A_GROUP = 1 << 16


@dataclass(frozen=True, slots=True)
class Merged:
    """What the logs held: rows of requests, and the names of logs whose last batch was cut off."""

    rows: int
    truncated: list[str]


def merge(folder: Path, target: Path, **metadata: Any) -> Merged:
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
    table = pa.Table.from_batches(batches, schema=requests.SCHEMA)
    table = table.sort_by([("scheduled_ns", "ascending"), ("request_id", "ascending")])
    write_table(target, table, requests.SCHEMA, **metadata)
    for name, schema in OPTIONAL:
        if paths := _logs(folder, name):
            _append_all(paths, beside(target, name), schema, truncated, metadata)
        else:
            beside(target, name).unlink(missing_ok=True)
    return Merged(table.num_rows, truncated)


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
