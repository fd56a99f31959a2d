"""prompts.parquet and schedule.parquet: written in parts, the same bytes for the same plan.

Unlike measured files they hold no host and no time, so that the same configuration and seed give the same file on every
machine with the same versions of NumPy and Arrow. Their metadata has the contract's version and the SHA-256 of each
file that went into the plan.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from inference_energy.contracts.schedule import PROMPTS
from inference_energy.contracts.tables import CONTRACT_VERSION
from inference_energy.errors import InputError


def write_plan(path: Path, tables: Iterable[pa.Table], schema: pa.Schema, sources: Mapping[str, str]) -> None:
    """Write tables of one contract as one Parquet file, under a temporary name that is then renamed.

    Args:
        path: the file to make; its folder is made too.
        tables: with the columns of `schema`.
        schema: the contract.
        sources: SHA-256 of each file that went into the plan, by its path in the configuration.
    """
    facts = {"version": str(CONTRACT_VERSION), "sources": json.dumps(dict(sources), sort_keys=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    # Random token ids do not repeat: a dictionary of them would only cost time.
    repetitive = [name for name in ("workload", "cell") if name in schema.names]
    try:
        with pq.ParquetWriter(
            partial, schema.with_metadata(facts), compression="zstd", use_dictionary=repetitive
        ) as writer:
            for table in tables:
                writer.write_table(table)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_prompts(path: Path) -> Iterable[pa.RecordBatch]:
    """The prompts of a file in parts.

    Raises:
        InputError: it is missing, is not Parquet, or lacks a column.
    """
    try:
        file = pq.ParquetFile(path, pre_buffer=False)  # otherwise all of it lies in memory
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {error}") from error
    lacking = [name for name in PROMPTS.names if name not in file.schema_arrow.names]
    if lacking:
        raise InputError(f"{path}: lacks the column(s) {', '.join(lacking)}; was it written by another tool?")
    return (batch.select(PROMPTS.names) for batch in file.iter_batches(1 << 14))


def digests(paths: Sequence[str]) -> dict[str, str]:
    """SHA-256 of files.

    Raises:
        InputError: one cannot be read.
    """
    found = {}
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                found[path] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return found
