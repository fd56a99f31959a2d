"""Traces of real traffic in four formats: reading their rows, and choosing those that a cell replays.

- Azure LLM inference traces: CSV with TIMESTAMP, ContextTokens, GeneratedTokens. Those of 2023 (Patel et al.,
  Splitwise, ISCA 2024) have times such as `2023-11-16 18:17:03.9799600`, those of 2024 (Stojkovic et al., DynamoLLM,
  HPCA 2025) the same with an offset of the time zone. The latter hold a week and tens of millions of rows.
- BurstGPT traces (Wang et al., arXiv 2401.17644): CSV with Timestamp [s], Request tokens, Response tokens. A response
  of 0 tokens is a request that failed; it is left out where the trace's lengths are used.
- Mooncake and Qwen-Bailian traces: JSONL, see `plan.arrivals.block_traces`.

A file whose numbers do not fit its format's unit of time, or its size of a block, is refused until the configuration
states them. Files are read in batches, and no further than the cell's end.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import MOST_REQUESTS, TraceArrival
from inference_energy.config.load.prompts import MOST_TOKENS
from inference_energy.contracts.outside import path_name
from inference_energy.errors import InputError, Notice, Setting
from inference_energy.plan.arrivals.block_traces import read_blocks
from inference_energy.plan.arrivals.trace_rows import (
    DATES_S,
    PUBLISHED,
    UNITS_S,
    Blocks,
    Progress,
    Rows,
    check_unit,
    time_units,
)
from inference_energy.plan.tables import read_columns


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
    until_s = end_in_trace_s(arrival, duration_s)
    match arrival.format:
        case "azure":
            rows = read_azure(arrival, until_s, key)
        case "burstgpt":
            rows = read_burstgpt(arrival, until_s, key)
        case "mooncake" | "bailian":
            rows = read_blocks(arrival, until_s, key)
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
    chosen, notes = order[inside], [Notice(note, key) for note in rows.notes]
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
            f"no request of {path_name(arrival.path)} falls into this cell; the trace is {last_s:g} s long",
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


Batch = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def gather(arrival: TraceArrival, batches: Iterable[Batch], until_s: float, key: str) -> Rows:
    """Return rows from batches of times in s, prompt lengths and answer lengths, as a CSV has them.

    Raises:
        InputError: a value cannot be a time or a length; the message has the row.
    """
    parts: list[Batch] = []
    progress = Progress(until_s)
    row, untimed = 0, 0
    for times_s, *lengths in batches:
        has_time = ~np.isnan(times_s)
        untimed += int((~has_time).sum())
        _check_rows(arrival, times_s, lengths, row, key)
        row += len(times_s)
        if not has_time.any():
            continue
        parts.append((times_s[has_time], lengths[0][has_time], lengths[1][has_time]))
        if not progress.needs_more(times_s[has_time]):
            break
        if row > MOST_REQUESTS:
            raise InputError(f"{path_name(arrival.path)}: more than {MOST_REQUESTS} rows", key=f"{key}.path")
    if not parts:
        return Rows(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
    times_s, *lengths = (np.concatenate(column) for column in zip(*parts, strict=True))
    prompt_tokens, output_tokens = (np.nan_to_num(values, nan=0.0).astype(np.int64) for values in lengths)
    notes = (f"{untimed} rows of {path_name(arrival.path)} without a time are left out",) if untimed else ()
    return Rows(times_s, prompt_tokens, output_tokens, notes=notes)


def _check_rows(
    arrival: TraceArrival, times_s: NDArray[np.float64], lengths: Sequence[NDArray[np.float64]], before: int, key: str
) -> None:
    """Refuse times that are infinite, and lengths that cannot be; a missing value is NaN."""
    names = tuple(AZURE_COLUMNS if arrival.format == "azure" else BURSTGPT_COLUMNS)
    checks = [(names[0], times_s, np.isinf(times_s), "a finite time is expected")]
    for name, values in zip(names[1:], lengths, strict=True):
        with np.errstate(invalid="ignore"):
            wrong = ~np.isnan(values) & ~((values >= 0) & (values <= MOST_TOKENS) & (values == np.floor(values)))
        checks.append((name, values, wrong, f"a whole number of tokens from 0 to {MOST_TOKENS} is expected"))
    for name, values, wrong, expected in checks:
        if wrong.any():
            index = int(np.flatnonzero(wrong)[0])
            text = f"{path_name(arrival.path)}: row {before + index + 1}: {name}: {expected}, got {values[index]:g}"
            raise InputError(text, key=f"{key}.path")


AZURE_COLUMNS = {"TIMESTAMP": pa.string(), "ContextTokens": pa.float64(), "GeneratedTokens": pa.float64()}
_NUMBER = r"[-+]?\d*\.?\d*(?:[eE][-+]?\d+)?"
YEARS = (1970, 2200)


def read_azure(arrival: TraceArrival, until_s: float, key: str) -> Rows:
    """Return the rows up to a time after the first.

    Raises:
        InputError: the file is not such a trace.
    """
    return gather(arrival, _in_seconds(arrival, key), until_s, key)


def _in_seconds(arrival: TraceArrival, key: str) -> Iterator[Batch]:
    """Yield the columns with times since the first row: seconds since 1970 would be exact to 0.2 us only."""
    origin_ns = None
    for batch in read_columns(arrival.path, AZURE_COLUMNS, f"{key}.path"):
        times, prompt_tokens, output_tokens = batch.columns
        parsed = _dates(arrival, times.to_pandas(), key)
        has_time = parsed.notna().to_numpy()
        times_ns = parsed.to_numpy(dtype="datetime64[ns]").astype(np.int64)
        if origin_ns is None and has_time.any():
            origin_ns = times_ns[has_time][0]
        since_s = (times_ns - (origin_ns or 0)) / 1e9
        yield np.where(has_time, since_s, np.nan), _floats(prompt_tokens), _floats(output_tokens)


def _dates(arrival: TraceArrival, texts: "pd.Series[str]", key: str) -> "pd.Series[pd.Timestamp]":
    """Return dates; numbers count from 1970, in the unit that the configuration states.

    Raises:
        InputError: a text is no date, or a number and no unit is stated.
    """
    name, path_key = path_name(arrival.path), f"{key}.path"
    numbers = texts.str.fullmatch(_NUMBER).fillna(False).astype(bool)
    if numbers.any() and arrival.time_unit is None:
        text = f"{name}: TIMESTAMP {texts[numbers].iloc[0][:40]} is a number, and Azure's traces have dates"
        raise InputError(text, key=key, write=time_units(key, *UNITS_S))
    try:
        if numbers.any():
            values = pd.to_numeric(texts[texts.notna()]).reindex(texts.index)
            if values.abs().max() * UNITS_S[arrival.time_unit or "s"] > DATES_S[1]:
                raise ValueError("a number beyond the year 2096")
            return pd.to_datetime(values, unit=arrival.time_unit, utc=True)
        parsed = pd.to_datetime(texts, utc=True, format="ISO8601")
    except (ValueError, OverflowError) as error:
        reason = str(error).partition(". You might")[0][:200]
        raise InputError(f"{name}: TIMESTAMP is no date and time: {reason}", key=path_key) from error
    years = parsed.dt.year.dropna()
    if not years.between(*YEARS).all():
        raise InputError(f"{name}: TIMESTAMP is of the year {years[~years.between(*YEARS)].iloc[0]:g}", key=path_key)
    return parsed


def _floats(column: pa.Array) -> NDArray[np.float64]:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


BURSTGPT_COLUMNS = {"Timestamp": pa.float64(), "Request tokens": pa.float64(), "Response tokens": pa.float64()}


def read_burstgpt(arrival: TraceArrival, until_s: float, key: str) -> Rows:
    """Return the rows up to a time after the first.

    Raises:
        InputError: the file is not such a trace.
    """
    unit_s = UNITS_S[arrival.time_unit or PUBLISHED["burstgpt"].unit]
    batches = (
        (times * unit_s, prompt_tokens, output_tokens)
        for times, prompt_tokens, output_tokens in (
            map(_floats, batch.columns) for batch in read_columns(arrival.path, BURSTGPT_COLUMNS, f"{key}.path")
        )
    )
    rows = gather(arrival, batches, until_s, key)
    if len(rows.times_s):
        if rows.times_s.min() < 0:
            text = f"{path_name(arrival.path)}: Timestamp {rows.times_s.min() / unit_s:g}: from 0 up is expected"
            raise InputError(text, key=f"{key}.path")
        check_unit(arrival, rows.times_s[0] / unit_s, rows.times_s, key)
    return rows
