"""A request log as a file, of this toolkit or of another tool: when requests were sent, their tokens, their ends."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from inference_energy.analysis.csv_log import Clock, CsvLog, Flags, LogTimes, read_csv_log, shown, shown_name
from inference_energy.analysis.integration import Values
from inference_energy.analysis.power_columns import lacks, time_column, words
from inference_energy.analysis.power_log_file import anchor_offset_ns, is_parquet
from inference_energy.contracts import requests as requests_contract
from inference_energy.contracts.io import read_table
from inference_energy.errors import InputError

TOKEN_COLUMNS = ("prompt_tokens", "completion_tokens")
LATENCY_COLUMNS = {"latency": 1.0, "latency_s": 1.0, "latency_ms": 1e-3, "latency_us": 1e-6, "latency_ns": 1e-9}
MAX_LATENCY_S = 1e6
MAX_TOKENS = 10**9
"""Tokens of one request, a hundred times the longest context of 2026."""

STATUS_COLUMNS = (
    *("status", "status_code", "http_status", "http_code", "http_status_code", "response_code"),
    *("success", "successful", "succeeded", "ok"),
)
OTHER_STATUS_COLUMNS = ("outcome", "state")
"""Read where there is none of `STATUS_COLUMNS`."""

ERROR_COLUMNS = ("error", "error_message", "error_msg", "exception")

_OUTCOMES = (
    "status success successful succeeded fail failed failure failures error errors exception exceptions timeout "
    "timedout aborted cancelled canceled dropped rejected outcome result returncode"
)
_OUTCOME_WORDS = frozenset(_OUTCOMES.split())
_OUTCOME_PAIRS = frozenset(("timed_out", "return_code", "exit_code", "response_code", "http_code"))

_OK = (
    "ok okay success successful succeeded succeed true t yes y pass passed complete completed finished finish done "
    "ended stop length eos eos_token stop_sequence end_turn max_tokens tool_calls function_call"
)
_FAILED = (
    "failed fail fails failure false f no n error errored err exception timeout timed_out timedout time_out aborted "
    "abort cancelled canceled cancel rejected refused dropped killed crashed disconnected incomplete skipped "
    "rate_limited overloaded unavailable server_error client_error internal_error connection_error"
)
_FAILED_FINISH = rf"(^|[^a-z])({'|'.join(word for word in _FAILED.split() if len(word) > 2)})([^a-z]|$)"
"""Also within a dictionary of SGLang, such as {"type": "abort"}."""

OK_WORDS, FAILED_WORDS = frozenset(_OK.split()), frozenset(_FAILED.split())
_NO_ERROR_WORDS = frozenset(("", "none", "null", "nan", "false", "0", "0.0", "[]", "{}", "n/a", "<na>", "-", "ok"))
_PLAINLY_OK = frozenset(("ok", "success", "completed", "200"))
_HTTP = re.compile(r"^(\d{1,3})(?:\.0*)?$")
MAX_WORDS = 10
"""Unknown words that a message lists."""


@dataclass(frozen=True)
class RequestLog:
    """The requests of a log.

    Attributes:
        frame: a row a request: `start_ns`, `end_ns` by `clock`, `prompt_tokens`, `completion_tokens` (NaN where
            unknown) and `ok`.
        clock: the clock of their times.
        assumptions: sentences on what was taken for granted.
    """

    frame: pd.DataFrame
    clock: Clock = "unix"
    assumptions: tuple[str, ...] = ()


def read_request_log(path: Path, zone: tzinfo | None = None) -> RequestLog:
    """Read requests.

    Args:
        path: CSV with `timestamp` (when sent), `prompt_tokens`, `completion_tokens`, `latency` [s] and, where known,
            `status`; or a requests.parquet.
        zone: zone of times that state none.

    Raises:
        InputError: the file or a column is missing or cannot be used, or there is no request.
    """
    log = _own(path) if is_parquet(path) else _foreign(read_csv_log(path), zone)
    if log.frame.empty:
        raise InputError(f"{path}: holds no request")
    return log


def _own(path: Path) -> RequestLog:
    frame = read_table(path, requests_contract.SCHEMA)
    frame = frame[frame["sent_ns"].notna()]
    offset_ns = anchor_offset_ns(path)
    return RequestLog(
        pd.DataFrame(
            {
                "start_ns": frame["sent_ns"].to_numpy(dtype=np.int64) + offset_ns,
                "end_ns": frame["end_ns"].fillna(frame["sent_ns"]).to_numpy(dtype=np.int64) + offset_ns,
                **{name: frame[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in TOKEN_COLUMNS},
                "ok": (frame["status"] == "ok").to_numpy(dtype=bool),
            }
        )
    )


def _foreign(log: CsvLog, zone: tzinfo | None) -> RequestLog:
    absent = [name for name in TOKEN_COLUMNS if name not in log.columns]
    latencies = [name for name in LATENCY_COLUMNS if name in log.columns]
    if absent or not latencies:
        raise lacks(log, [*absent, *([] if latencies else ["latency"])])
    if len(latencies) > 1:
        raise InputError(f"{log.path}: has the columns {' and '.join(latencies)}; keep one")
    column = time_column(log, "timestamp")
    if not len(log):
        raise InputError(f"{log.path}: holds no request")
    times = log.times(column, zone)
    ok, sent, assumptions = _outcomes(log)
    unsent = sent & ~times.known
    if unsent.any():
        raise InputError(
            f"{log.path}:{log.line(int(np.argmax(unsent)))}: column {shown_name(column)} has empty cells; write "
            "when each request was sent"
        )
    latency_s = _latencies_s(log, latencies[0], ok & sent)
    tokens = {name: _counts(log, name) for name in TOKEN_COLUMNS}
    frame = _frame(times, latency_s, tokens, ok)
    return RequestLog(frame[sent].reset_index(drop=True), times.clock, tuple(assumptions))


def _frame(times: LogTimes, latency_s: Values, tokens: Mapping[str, Values], ok: Flags) -> pd.DataFrame:
    end_ns = times.ns + np.round(latency_s * 1e9).astype(np.int64)
    return pd.DataFrame({"start_ns": times.ns, "end_ns": end_ns, **tokens, "ok": ok})


def _latencies_s(log: CsvLog, column: str, needed: Flags) -> Values:
    """Return the latencies [s]; 0 of failed requests that have none."""
    latency_s = log.numbers(column) * LATENCY_COLUMNS[column]
    with np.errstate(invalid="ignore"):
        checks = (
            (latency_s < 0, "has negative values"),
            (latency_s > MAX_LATENCY_S, "has latencies of days; write seconds"),
            (np.isnan(latency_s) & needed, "has no value for a request that ended well"),
        )
    for bad, problem in checks:
        if bad.any():
            raise log.error(int(np.argmax(bad)), column, problem)
    return np.nan_to_num(latency_s)


def _counts(log: CsvLog, column: str) -> Values:
    """Return token counts, NaN where they are not known."""
    counts = log.numbers(column)
    with np.errstate(invalid="ignore"):
        bad = (counts < 0) | (counts > MAX_TOKENS) | (counts % 1 > 0)
    if bad.any():
        raise log.error(int(np.argmax(bad)), column, "has something that is no count of tokens")
    return counts


def _outcomes(log: CsvLog) -> tuple[Flags, Flags, list[str]]:
    """Return which requests ended well, which were sent, and what was taken for granted.

    Raises:
        InputError: a status is not known; the message lists them.
    """
    statuses = [name for name in STATUS_COLUMNS if name in log.columns]
    statuses = statuses or [name for name in OTHER_STATUS_COLUMNS if name in log.columns]
    errors = [name for name in ERROR_COLUMNS if name in log.columns]
    sent = np.ones(len(log), dtype=np.bool_)
    ok = np.ones(len(log), dtype=np.bool_)
    assumptions = []
    if "finish_reason" in log.columns:
        ok &= ~np.asarray(pc.match_substring_regex(_plain(log, "finish_reason"), _FAILED_FINISH), dtype=np.bool_)
    _refuse_unread_outcome(log, {*statuses, *errors})
    if not statuses and not errors:
        return ok, sent, ["there is no column status, so every request ended well"]
    for name in statuses:
        # A second one, such as the HTTP status beside our own, may be empty where there was no answer.
        ok &= _ended_well(log, name, is_first=name == statuses[0])
        if name == "status":
            sent = ~np.asarray(pc.equal(_plain(log, name), "skipped"), dtype=np.bool_)
    for name in errors:
        ok &= np.asarray(pc.is_in(_plain(log, name), pa.array(sorted(_NO_ERROR_WORDS))), dtype=np.bool_)
    if not statuses:
        assumptions.append(f"requests with an empty column {shown_name(errors[0])} ended well")
    return ok, sent, assumptions


def _refuse_unread_outcome(log: CsvLog, read: Collection[str]) -> None:
    """Refuse a log of which another column seems to say which requests failed, when nothing that is read says it."""
    if read:
        return
    for name in log.columns:
        parts = words(name)
        pairs = {"_".join(pair) for pair in pairwise(parts)}
        if not (set(parts) & _OUTCOME_WORDS or pairs & _OUTCOME_PAIRS):
            continue
        if not any({*pc.unique(_plain(log, name)).to_pylist()} <= same for same in (_NO_ERROR_WORDS, _PLAINLY_OK)):
            raise InputError(
                f"{log.path}: column {shown_name(name)} may say which requests failed, which is read from status or "
                "error only: call it so, or remove it"
            )


def _plain(log: CsvLog, column: str) -> pa.StringArray:
    return pc.replace_substring_regex(pc.utf8_lower(log.cells(column)), r"[\s-]+", "_")


def _ended_well(log: CsvLog, column: str, *, is_first: bool) -> Flags:
    encoded = _plain(log, column).dictionary_encode()
    found: list[str] = encoded.dictionary.to_pylist()
    is_http = any((match := _HTTP.match(word)) and 100 <= int(match[1]) < 600 for word in found)
    only_zero = all(_HTTP.match(word) and float(word) == 0 for word in found)
    verdicts = [_verdict(word, is_http=is_http, empty_is_ok=not is_first) for word in found]
    indices = encoded.indices.to_numpy()
    unknown = [index for index, verdict in enumerate(verdicts) if verdict is None or only_zero]
    if unknown:
        counts = np.bincount(indices, minlength=len(found))
        listed = [
            f"{shown(found[index]) if found[index] else 'empty'} ({counts[index]} times, first in line "
            f"{log.line(int(np.argmax(indices == index)))})"
            for index in unknown[:MAX_WORDS]
        ]
        more = f" and {len(unknown) - MAX_WORDS} more" if len(unknown) > MAX_WORDS else ""
        raise InputError(
            f"{log.path}: column {shown_name(column)} says something that is neither success nor failure: "
            f"{', '.join(listed)}{more}; write ok or failed"
        )
    return np.asarray(np.array([bool(verdict) for verdict in verdicts])[indices], dtype=np.bool_)


def _verdict(word: str, *, is_http: bool, empty_is_ok: bool) -> bool | None:
    """Return whether a status in small letters says that the request ended well; None if it is not known."""
    number = _HTTP.match(word)
    if number:
        code = int(number[1])
        if is_http:
            # Load generators write 0 where there was no answer.
            return True if 200 <= code < 300 else False if code == 0 or 400 <= code < 600 else None
        return {0: False, 1: True}.get(code)
    if word in ("", "nan", "null", "none", "<na>"):
        return True if empty_is_ok else False if is_http else None
    return True if word in OK_WORDS else False if word in FAILED_WORDS else None
