"""Traces of real traffic in three formats: reading their rows, and choosing those that a cell replays.

- Azure LLM inference traces: CSV with TIMESTAMP, ContextTokens, GeneratedTokens. Those of 2023 (Patel et al.,
  Splitwise, ISCA 2024) have times such as `2023-11-16 18:17:03.9799600`, those of 2024 (Stojkovic et al., DynamoLLM,
  HPCA 2025) the same with an offset of the time zone. The latter hold a week and tens of millions of rows.
- BurstGPT traces (Wang et al., arXiv 2401.17644): CSV with Timestamp [s], Request tokens, Response tokens. A response
  of 0 tokens is a request that failed; it is left out where the trace's lengths are used.
- Mooncake traces (Qin et al., arXiv 2407.00079): a JSON object a line. `timestamp` is in ms; `input_length` and
  `output_length` in tokens; `hash_ids` name the blocks of 512 tokens of the prompt, the same id for the same content
  after the same beginning: that is the trace's reuse of prefixes.

Files are read in batches, and no further than the cell's end.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import TraceArrival
from inference_energy.errors import InputError, Notice, Setting
from inference_energy.plan.tables import read_columns


@dataclass(frozen=True)
class Blocks:
    """The ids of each prompt's blocks: prompt i has `ids[starts[i]:starts[i + 1]]`."""

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    block_tokens: int

    def take(self, rows: NDArray[np.int64]) -> "Blocks":
        """Return the blocks of some prompts."""
        parts = [self.ids[self.starts[row] : self.starts[row + 1]] for row in rows.tolist()]
        return Blocks.from_lists(parts, self.block_tokens)

    @classmethod
    def from_lists(cls, parts: Sequence[NDArray[np.int64] | list[int]], block_tokens: int) -> "Blocks":
        """Build the blocks from a list of ids per prompt."""
        starts = np.concatenate(([0], np.cumsum([len(part) for part in parts], dtype=np.int64)))
        ids = np.concatenate([np.asarray(part, dtype=np.int64) for part in parts]) if parts else np.empty(0, np.int64)
        return cls(ids, starts, block_tokens)


@dataclass(frozen=True)
class Rows:
    """A trace's rows, in the order of the file.

    Attributes:
        times_s: time since the trace's own origin.
        prompt_tokens, output_tokens: lengths; below 1 if the trace has none.
        blocks: ids of each prompt's blocks.
    """

    times_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    blocks: Blocks | None = None


@dataclass(frozen=True)
class Trace:
    """The part of a trace that a cell replays; `notes` tell which requests were left out."""

    offsets_ns: NDArray[np.int64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    blocks: Blocks | None
    notes: tuple[Notice, ...]


def read_trace(arrival: TraceArrival, duration_s: float, key: str) -> Trace:
    """Return the requests of a trace that fall into a cell.

    Args:
        arrival: which trace, which part, how fast.
        duration_s: duration of the cell.
        key: configuration key of the arrival.

    Raises:
        InputError: the file cannot be read, is of another format, or has no request for this cell.
    """
    until_s, path_key = end_in_trace_s(arrival, duration_s), f"{key}.path"
    match arrival.format:
        case "azure":
            rows = read_azure(arrival.path, until_s, path_key)
        case "burstgpt":
            rows = read_burstgpt(arrival.path, until_s, path_key)
        case "mooncake":
            rows = read_mooncake(arrival.path, until_s, arrival.block_tokens, path_key)
    return cut_to_cell(rows, arrival, duration_s, key)


def end_in_trace_s(arrival: TraceArrival, duration_s: float) -> float:
    """Return the end of the cell in the trace's own time [s]."""
    return arrival.start_s + duration_s / arrival.time_scale


def cut_to_cell(rows: Rows, arrival: TraceArrival, duration_s: float, key: str) -> Trace:
    """Return the rows that fall into a cell, at times from the cell's start.

    Args:
        rows: rows of the trace.
        arrival: which part of the trace, and how fast.
        duration_s: duration of the cell.
        key: configuration key of the arrival.

    Raises:
        InputError: no row falls into the cell.
    """
    order = np.argsort(rows.times_s, kind="stable")
    since_s = rows.times_s[order] - rows.times_s[order[0]] if len(order) else np.empty(0)
    times_s = (since_s - arrival.start_s) * arrival.time_scale
    inside = np.flatnonzero((times_s >= 0) & (times_s < duration_s))
    chosen, notes = order[inside], []
    times_s = times_s[inside]
    if arrival.lengths:
        whole = (rows.prompt_tokens[chosen] >= 1) & (rows.output_tokens[chosen] >= 1)
        if not whole.all():
            notes.append(
                Notice(f"{int((~whole).sum())} requests of the trace without a length or an answer are left out", key)
            )
        chosen, times_s = chosen[whole], times_s[whole]
    if arrival.max_requests is not None:
        chosen, times_s = chosen[: arrival.max_requests], times_s[: arrival.max_requests]
    if not len(chosen):
        last_s = float(since_s[-1]) if len(since_s) else 0.0
        raise InputError(
            f"no request of {arrival.path} falls into this cell; the trace is {last_s:g} s long",
            key=key,
            write=(Setting(f"{key}.start_s", "EARLIER"), Setting(f"{key}.time_scale", "SMALLER")),
        )
    return Trace(
        offsets_ns=np.minimum(np.rint(times_s * 1e9).astype(np.int64), round(duration_s * 1e9) - 1),
        prompt_tokens=rows.prompt_tokens[chosen],
        output_tokens=rows.output_tokens[chosen],
        blocks=rows.blocks.take(chosen) if rows.blocks else None,
        notes=tuple(notes),
    )


def gather(batches: Iterable[tuple[pa.Array, pa.Array, pa.Array]], until_s: float) -> Rows:
    """Return rows from batches of times in s, prompt lengths and answer lengths.

    Rows without a time are left out. Traces are nearly in the order of time, so reading ends with the first batch that
    lies wholly more than `until_s` after the first batch.
    """
    parts: list[tuple[NDArray[np.float64], ...]] = []
    origin_s = None
    for batch in batches:
        times_s, prompt_tokens, output_tokens = (column.to_numpy(zero_copy_only=False) for column in batch)
        has_time = ~np.isnan(times_s)
        if not has_time.any():
            continue
        first_s = float(times_s[has_time].min())
        origin_s = first_s if origin_s is None else origin_s
        if first_s - origin_s > until_s:
            break
        parts.append((times_s[has_time], prompt_tokens[has_time], output_tokens[has_time]))
    if not parts:
        return Rows(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
    times_s, prompt_tokens, output_tokens = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Rows(times_s, _whole(prompt_tokens), _whole(output_tokens))


def _whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.nan_to_num(values, nan=0.0).astype(np.int64)


AZURE_COLUMNS = {"TIMESTAMP": pa.string(), "ContextTokens": pa.float64(), "GeneratedTokens": pa.float64()}


def read_azure(path: str, until_s: float, key: str) -> Rows:
    """Return the rows up to a time after the first.

    Raises:
        InputError: the file is not such a trace.
    """
    return gather(_in_seconds(path, key), until_s)


def _in_seconds(path: str, key: str) -> Iterator[tuple[pa.Array, pa.Array, pa.Array]]:
    """Yield the columns with times since the first row: seconds since 1970 would be exact to 0.2 us only."""
    origin_ns = None
    for batch in read_columns(path, AZURE_COLUMNS, key):
        times, prompt_tokens, output_tokens = batch.columns
        try:
            parsed = pd.to_datetime(times.to_pandas(), utc=True, format="ISO8601")
        except ValueError as error:
            raise InputError(f"{path}: TIMESTAMP is no date and time: {error}", key=key) from error
        has_time = parsed.notna().to_numpy()
        times_ns = parsed.to_numpy(dtype="datetime64[ns]").astype(np.int64)
        if origin_ns is None and has_time.any():
            origin_ns = times_ns[has_time][0]
        since_s = (times_ns - (origin_ns or 0)) / 1e9
        yield pa.array(np.where(has_time, since_s, np.nan)), prompt_tokens, output_tokens


BURSTGPT_COLUMNS = {"Timestamp": pa.float64(), "Request tokens": pa.float64(), "Response tokens": pa.float64()}


def read_burstgpt(path: str, until_s: float, key: str) -> Rows:
    """Return the rows up to a time after the first.

    Raises:
        InputError: the file is not such a trace.
    """
    return gather((tuple(batch.columns) for batch in read_columns(path, BURSTGPT_COLUMNS, key)), until_s)


MOONCAKE_FIELDS = ("timestamp", "input_length", "output_length")


def read_mooncake(path: str, until_s: float, block_tokens: int, key: str) -> Rows:
    """Return the rows up to a time after the first.

    Raises:
        InputError: the file cannot be read or is not such a trace; the message has the line.
    """
    rows: list[tuple[float, int, int]] = []
    ids: list[list[int]] = []
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                content = _object(line, f"{path}:{number}", key)
                rows.append((content["timestamp"] / 1e3, content["input_length"], content["output_length"]))
                ids.append(content.get("hash_ids") or [])
                if rows[-1][0] - rows[0][0] > until_s:
                    break
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", key=key) from error
    times_s, prompt_tokens, output_tokens = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    blocks = Blocks.from_lists(ids, block_tokens) if any(ids) else None
    return Rows(times_s.copy(), prompt_tokens.astype(np.int64), output_tokens.astype(np.int64), blocks)


def _object(line: str, line_name: str, key: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{line_name}: not JSON: {error}", key=key) from error
    names = list(content) if isinstance(content, dict) else [type(content).__name__]
    lacking = [name for name in MOONCAKE_FIELDS if name not in names]
    if not isinstance(content, dict) or lacking:
        raise InputError(
            f"{line_name}: lacks {', '.join(lacking)}; found: {', '.join(names)}. Is it of this format?", key=key
        )
    wrong = [
        name
        for name in MOONCAKE_FIELDS
        if isinstance(content[name], bool) or not isinstance(content[name], int | float)
    ]
    if wrong:
        raise InputError(f"{line_name}: {wrong[0]}: a number is expected, got {content[wrong[0]]!r}", key=key)
    ids = content.get("hash_ids")
    if ids is not None and not (isinstance(ids, list) and all(isinstance(block, int) for block in ids)):
        raise InputError(f"{line_name}: hash_ids: a list of whole numbers is expected", key=key)
    return content
