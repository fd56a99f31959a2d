"""CSV logs that people and other tools wrote: from bytes to columns of numbers with units, and of times.

Nothing is guessed where two readings of a cell are possible: the file is refused, with the line and what was found.

A time is Unix time in s, ms, us or ns, by its size (the years 2000 to 2099 in one unit are in none of the others); an
ISO 8601 time; or the time since a start that is not known. Without a zone an ISO time is one of a local clock.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from inference_energy.analysis.integration import Times, Values
from inference_energy.contracts.outside import MIB, read_bytes
from inference_energy.errors import InputError

MAX_BYTES = 1024 * MIB
MAX_COLUMNS = 4096
MAX_SHOWN = 40
"""Characters of a cell in a message."""

Clock = Literal["unix", "local", "relative"]
"""Unix time; a clock on a wall whose zone is not stated; seconds since a start that is not stated."""

UNITS_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}

Flags = NDArray[np.bool_]

_DELIMITERS = ",;\t|"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?$"
_DECIMAL_COMMA = r"^[+-]?\d*,\d+$"
_THOUSANDS = r"^[+-]?[1-9]\d{0,2}(,\d{3})+$"
_INFINITE = r"(?i)^[+-]?inf(inity)?$"
_NO_VALUE = r"(?i)^(|nan|<na>|n/?a|null|none|-+|err!|\[[a-z/ ]+\])$"
"""Empty, a word of pandas or a database, or one of nvidia-smi such as [N/A]."""

_EXACT_TIME = r"^(?P<whole>\d{1,19})(?:\.(?P<part>\d{0,9})\d*)?$"
_ISO_TIME = (
    r"^(?P<year>(?:19|20)\d\d)[-/](?P<month>\d\d?)[-/](?P<day>\d\d?)[T ](?P<clock>\d\d:\d\d(?::\d\d)?)"
    r"(?:[.,](?P<part>\d{1,9}))?\s*(?P<zone>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?$"
)
_DAY_OR_MONTH_FIRST = re.compile(r"^\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b")
_NAMED_UNIT = re.compile(
    r"[\W_](s|sec|secs|seconds|ms|millis|milliseconds|us|µs|micros|microseconds|ns|nanos|nanoseconds)\W*$",
    re.IGNORECASE,
)
_UNIT_OF_WORD = {"sec": "s", "secs": "s", "millis": "ms", "µs": "us", "micros": "us", "nanos": "ns"} | {
    f"{prefix}seconds": unit for prefix, unit in (("", "s"), ("milli", "ms"), ("micro", "us"), ("nano", "ns"))
}

# The years 2000 to 2099, and the longest time since a start: three years.
_UNIX_S = (946_684_800, 4_102_444_800)
_MAX_RELATIVE_S = 10**8


@dataclass(frozen=True)
class LogTimes:
    """The times of a log.

    Attributes:
        ns: time of each row, or 0 where it has none.
        known: whether the row has a time.
        clock: what they count from.
    """

    ns: Times
    known: Flags
    clock: Clock


@dataclass(frozen=True)
class CsvLog:
    """A CSV file as columns of text without blanks around it.

    Attributes:
        path: the file.
        text: its content.
        delimiter: the character between two cells.
        columns: cells by column, in order.
    """

    path: Path
    text: str
    delimiter: str
    columns: Mapping[str, pa.StringArray]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    @cached_property
    def _lines(self) -> NDArray[np.int64]:
        """Line number of each row; the header is not among them. Read only for a message."""
        return np.array([line for line, _ in _rows(self.text, self.delimiter)][1:], dtype=np.int64)

    def line(self, row: int) -> int:
        """Return the line of the file in which a row ends; a row may have several, within quotation marks."""
        return int(self._lines[row])

    def error(self, row: int, column: str, problem: str) -> InputError:
        """Return the error of one cell, with its line and what it holds."""
        cell = shown(self.columns[column][row].as_py())
        return InputError(f"{self.path}:{self.line(row)}: column {shown_name(column)} {problem}: {cell}")

    def cells(self, column: str) -> pa.StringArray:
        """Return the cells of a column."""
        return self.columns[column]

    def missing(self, column: str) -> Flags:
        """Return whether each cell is empty or says that there is no value."""
        return _matches(self.columns[column], _NO_VALUE)

    def number_or_missing(self, column: str) -> Flags:
        """Return whether each cell is a plain number or has no value."""
        cells = self.columns[column]
        return _matches(cells, _NO_VALUE) | _matches(cells, _NUMBER)

    def numbers(self, column: str) -> Values:
        """Return a column of numbers, NaN where there is no value.

        Raises:
            InputError: a cell is no number, is infinite, or may have a comma for thousands or for decimals.
        """
        return self._as_numbers(column, self.columns[column])

    def quantities(self, column: str, units: Mapping[str, float], unit: str | None) -> tuple[Values, str | None]:
        """Return a column of numbers, in whose cells their unit may stand, and that unit; as `numbers` raises.

        Args:
            column: the column.
            units: the factor of each unit that is known.
            unit: the unit in the header; None if there is none.
        """
        cells, missing = self.columns[column], self.missing(column)
        words = pc.struct_field(pc.extract_regex(cells, r"^[^a-zA-Zµ]*[\d.]\s*(?P<unit>[a-zA-Zµ]+)$"), "unit")
        found = {word for word in pc.unique(words.filter(pa.array(~missing))).to_pylist() if word}
        for word in sorted(found):
            row = pc.index(words, word).as_py()
            if word not in units:
                raise self.error(row, column, f"has a unit that is none of {', '.join(units)}")
            if unit is not None and units[unit] != units[word]:
                raise self.error(row, column, f"has another unit than its name says ({unit})")
        if len(found) > 1:
            row = pc.index(words, sorted(found)[1]).as_py()
            raise self.error(row, column, f"has cells with different units ({', '.join(sorted(found))})")
        unit = found.pop() if found else unit
        bare = cells if unit is None else pc.replace_substring_regex(cells, rf"([\d.])\s*{unit}$", r"\1")
        return self._as_numbers(column, bare) * units.get(unit or "", 1.0), unit

    def times(self, column: str, zone: tzinfo | None) -> LogTimes:
        """Return a column of times.

        Args:
            column: the column.
            zone: zone of ISO times that state none; None if it is not known.

        Raises:
            InputError: a cell is no time, or may mean different times.
        """
        missing = self.missing(column)
        rows = np.flatnonzero(~missing)
        if not len(rows):
            return LogTimes(np.zeros(len(self), dtype=np.int64), ~missing, "unix")
        first = self.columns[column][int(rows[0])].as_py()
        numeric = re.match(_NUMBER, first) or re.match(_DECIMAL_COMMA, first)
        return self._counted(column, rows, ~missing) if numeric else self._dated(column, rows, ~missing, zone)

    def _as_numbers(self, column: str, cells: pa.StringArray) -> Values:
        missing = _matches(cells, _NO_VALUE)
        numeric = _matches(cells, _NUMBER)
        comma = _matches(cells, _DECIMAL_COMMA) & ~numeric
        if comma.any():
            point = np.asarray(pc.match_substring(cells, ".")) & numeric
            if point.any() or not (comma & ~_matches(cells, _THOUSANDS)).any():
                raise self.error(
                    int(np.argmax(comma)), column, "has a comma that may be one of thousands or of decimals"
                )
            cells = pc.replace_substring(cells, ",", ".")
        self._refuse(column, _matches(cells, _INFINITE), "has infinite values")
        bad = ~(missing | numeric | comma)
        self._refuse(column, bad, "has something that is not a number")
        values = pc.if_else(pa.array(missing), None, cells).cast(pa.float64())
        found: Values = values.to_numpy(zero_copy_only=False)
        self._refuse(column, np.isinf(found), "has infinite values")
        return found

    def _refuse(self, column: str, bad: Flags, problem: str) -> None:
        if bad.any():
            raise self.error(int(np.argmax(bad)), column, problem)

    def _counted(self, column: str, rows: NDArray[np.intp], known: Flags) -> LogTimes:
        """Return times that are numbers, to the last digit that is written."""
        number = self._as_numbers(column, self.columns[column])
        size = number[rows]
        self._refuse(column, known & (number < 0), "has a time below zero")
        named = _NAMED_UNIT.search(column)
        unit, clock = self._unit(column, rows, size, named[1].lower() if named else None)
        cells = pc.replace_substring(self.columns[column], ",", ".")
        digits = pc.extract_regex(cells, _EXACT_TIME)
        if not pc.any(pc.is_null(digits.filter(pa.array(known)))).as_py():
            per_unit = UNITS_NS[unit]
            whole = pc.fill_null(pc.struct_field(digits, "whole"), "0")
            part = pc.fill_null(pc.struct_field(digits, "part"), "0")
            part_e9 = pc.utf8_rpad(pc.if_else(pc.equal(part, ""), "0", part), 9, "0").cast(pa.int64()).to_numpy()
            ns = whole.cast(pa.int64()).to_numpy() * per_unit + part_e9 * per_unit // 10**9
        else:
            self._refuse(column, known & self._is_coarse(column, UNITS_NS[unit]), "has times rounded to over a second")
            ns = np.round(np.nan_to_num(number) * UNITS_NS[unit]).astype(np.int64)
        return LogTimes(np.where(known, ns, 0), known, clock)

    def _is_coarse(self, column: str, per_unit: int) -> Flags:
        """Return whether the last digit of each number, as it is written with an exponent, counts over a second."""
        split = pc.extract_regex(self.columns[column], r"^[^.,eE]*[.,]?(?P<part>\d*)[eE]\+?(?P<exponent>-?\d+)$")
        exponent = pc.fill_null(pc.struct_field(split, "exponent").cast(pa.int64()), 0)
        last = pc.subtract(exponent, pc.fill_null(pc.utf8_length(pc.struct_field(split, "part")), 0))
        return np.asarray(last.to_numpy(zero_copy_only=False) + np.log10(per_unit) > 9, dtype=np.bool_)

    def _unit(self, column: str, rows: NDArray[np.intp], size: Values, named: str | None) -> tuple[str, Clock]:
        """Return unit and clock of numbers, by their name or else their size."""
        spoken = _UNIT_OF_WORD.get(named or "", named)
        choices = UNITS_NS if spoken is None else {spoken: UNITS_NS[spoken]}
        first_s, last_s = _UNIX_S
        for unit, per_unit in choices.items():
            scale = 10**9 // per_unit
            inside = (size >= first_s * scale) & (size < last_s * scale)
            if inside.all():
                return unit, "unix"
            if inside[0]:
                odd = int(rows[np.argmin(inside)])
                raise self.error(odd, column, f"has Unix times in {unit} in line {self.line(int(rows[0]))}, not here")
        unit, scale = (spoken, 10**9 // UNITS_NS[spoken]) if spoken else ("s", 1)
        too_large = size >= _MAX_RELATIVE_S * scale
        if too_large.any():
            row = int(rows[np.argmax(too_large)])
            kinds = f"in {unit}" if spoken else "in s, ms, us or ns"
            problem = f"has neither Unix time {kinds} of the years 2000 to 2099 nor a time since a start"
            raise self.error(row, column, problem)
        return unit, "relative"

    def _dated(self, column: str, rows: NDArray[np.intp], known: Flags, zone: tzinfo | None) -> LogTimes:
        """Return times that are dates, to the ns."""
        cells = self.columns[column]
        parts = pc.extract_regex(cells, _ISO_TIME)
        bad = known & np.asarray(pc.is_null(parts))
        if bad.any():
            row = int(np.argmax(bad))
            if _DAY_OR_MONTH_FIRST.match(cells[row].as_py()):
                raise self.error(row, column, "has a date of which day and month may be confused; write YYYY-MM-DD")
            raise self.error(row, column, "has something that is no time; write Unix time or YYYY-MM-DD hh:mm:ss")
        kept = parts.filter(pa.array(known))
        part = {name: pc.struct_field(kept, name).to_pylist() for name in ("year", "month", "day", "clock", "part")}
        texts = [
            f"{year}-{month:0>2}-{day:0>2}T{clock}{'' if len(clock) > 5 else ':00'}.{fraction or '0'}"
            for year, month, day, clock, fraction in zip(*part.values(), strict=True)
        ]
        try:
            local_ns = np.array(texts, dtype="datetime64[ns]").astype(np.int64)
        except ValueError as error:
            row = next(int(row) for row, text in zip(rows, texts, strict=True) if not _is_date(text))
            raise self.error(row, column, "has a date that does not exist") from error
        zones = pc.struct_field(kept, "zone").to_pylist()
        naive = np.array([not name for name in zones])
        if naive.any() and not naive.all():
            odd = int(rows[np.argmax(naive != naive[0])])
            raise self.error(odd, column, f"has times with and without a zone, as in line {self.line(int(rows[0]))}")
        clock: Clock = "unix"
        if not naive.any():
            offsets_ns = {name: round(_offset(name).total_seconds() * 1e9) for name in set(zones)}
            local_ns = local_ns - np.array([offsets_ns[name] for name in zones], dtype=np.int64)
        elif zone is not None:
            local_ns = self._placed(column, rows, local_ns, zone)
        else:
            clock = "local"
        ns = np.zeros(len(self), dtype=np.int64)
        ns[rows] = local_ns
        return LogTimes(ns, known, clock)

    def _placed(self, column: str, rows: NDArray[np.intp], local_ns: Times, zone: tzinfo) -> Times:
        """Return the Unix times of a local clock's."""
        index = pd.DatetimeIndex(local_ns.astype("datetime64[ns]"))
        placed = index.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
        bad = np.asarray(placed.isna())
        if bad.any():
            raise self.error(int(rows[np.argmax(bad)]), column, f"has a time that {zone} has twice or never")
        return np.asarray(placed.as_unit("ns").asi8, dtype=np.int64)


def read_csv_log(path: Path) -> CsvLog:
    """Read a CSV log: UTF-8, or UTF-16 with its mark, with cells between commas, semicolons, tabs or bars.

    Raises:
        InputError: it cannot be read, is too large, is no text, or has a line with more or fewer cells than its header.
    """
    text = _decoded(path, read_bytes(path, MAX_BYTES))
    start = re.match(r"\s*", text)
    head = (start.end() if start else 0), re.search(r"[^\r\n]*", text.lstrip())
    line = head[1][0] if head[1] else ""
    if not line.strip():
        raise InputError(f"{path}: is empty")
    delimiter = max(_DELIMITERS, key=line.count)
    try:
        names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))]
    except csv.Error as error:
        raise InputError(f"{path}: its first line cannot be read as CSV: {error}") from error
    if len(names) > MAX_COLUMNS:
        raise InputError(f"{path}: has {len(names)} columns; {MAX_COLUMNS} are the most")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: has the column {shown_name(twice[0])} twice; rename one")
    body = text[head[0] + len(line) :]
    # Names are made unique where they are empty: such columns are of no use here.
    unique = [name or f"column {number}" for number, name in enumerate(names, start=1)]
    if len(set(unique)) < len(unique):
        raise InputError(f"{path}: has a column without a name; name it")
    if not body.strip():
        empty = pa.array([], pa.string())
        return CsvLog(path, text, delimiter, dict.fromkeys(unique, empty))
    try:
        table = pacsv.read_csv(
            pa.BufferReader(body.lstrip("\r\n").encode()),
            read_options=pacsv.ReadOptions(column_names=unique, block_size=16 * MIB),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(unique, pa.string())),
        )
    except pa.ArrowInvalid as error:
        raise InputError(_malformed(path, text, delimiter, len(names), error)) from error
    columns = {name: pc.utf8_trim_whitespace(table[name].combine_chunks()) for name in unique}
    return CsvLog(path, text, delimiter, columns)


def read_zone(name: str) -> tzinfo:
    """Return a time zone by its name (UTC, Europe/Berlin) or its offset (+02:00).

    Raises:
        InputError: there is none of this name.
    """
    try:
        if re.fullmatch(r"Z|UTC|GMT|[+-]\d\d(:?\d\d)?", name):
            return timezone(_offset(name))
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(f"{shown(name)}: there is no such time zone; write UTC, +02:00 or Europe/Berlin") from error


def shown(text: str) -> str:
    """Return a cell for a message: quoted, printable, and not too long."""
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}...")


def shown_name(name: str) -> str:
    """Return a column's name for a message."""
    printable = "".join(character if character.isprintable() else "\ufffd" for character in name)
    return printable if len(printable) <= MAX_SHOWN else f"{printable[:MAX_SHOWN]}..."


def shown_names(names: Any) -> str:
    """Return columns' names for a message, the first 20."""
    listed = [shown_name(name) for name in names]
    return ", ".join(listed[:20]) + (f" and {len(listed) - 20} more" if len(listed) > 20 else "")


def utc_text(time_ns: int) -> str:
    """Return a Unix time as `2026-11-30 07:37:42.500 UTC`."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"


def _decoded(path: Path, content: bytes) -> str:
    coding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(coding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8 at byte {error.start} of the file") from error
    if "\x00" in text:
        raise InputError(f"{path}:{text.count(chr(10), 0, text.index(chr(0))) + 1}: has a NUL byte; is it text?")
    return text


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, with the line in which each ends."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    for row in reader:
        if row:
            yield reader.line_num, row


def _malformed(path: Path, text: str, delimiter: str, width: int, error: Exception) -> str:
    try:
        for line, row in _rows(text, delimiter):
            if len(row) != width:
                return f"{path}:{line}: has {len(row)} cell(s), its header {width}; mend or remove the line"
    except csv.Error as problem:
        return f"{path}: cannot be read as CSV: {problem}"
    return f"{path}: cannot be read as CSV: {shown(str(error))}"


def _matches(cells: pa.StringArray, pattern: str) -> Flags:
    return np.asarray(pc.match_substring_regex(cells, pattern), dtype=np.bool_)


def _is_date(text: str) -> bool:
    try:
        np.datetime64(text, "ns")
    except ValueError:
        return False
    return True


def _offset(name: str) -> timedelta:
    if name in ("Z", "UTC", "GMT"):
        return timedelta(0)
    digits = name[1:].replace(":", "").ljust(4, "0")
    return (-1 if name[0] == "-" else 1) * timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
