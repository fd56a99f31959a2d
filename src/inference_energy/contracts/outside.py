"""What comes from outside (servers, sensors, files of users and archives): bounded in bytes and depth, and made clean.

A reader of such data takes it through one of these functions, so that none of them meets a text that Arrow cannot
store, a count that cannot be, a page without an end, or JSON that is nested beyond Python's stack.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from inference_energy.errors import InputError

if TYPE_CHECKING:
    import aiohttp

MIB = 2**20
MAX_DEPTH = 64
"""Levels of lists and objects in JSON. What servers and tools write has fewer than ten."""

MAX_LINE_BYTES = 64 * MIB
"""Longest line of a user's file: a prompt of ten million tokens."""

MAX_COUNT = 2**40
"""Tokens, requests, bytes: nothing that one run counts comes near."""

MAX_PAGE_MIB = 32
"""Largest page of a server that is read, such as /metrics; one of vLLM has 0.1 MiB an engine."""

PAGE_TIMEOUT_S = 5.0
"""Longest time of one page."""

MAX_SERIES = 20_000
"""Series of one server on /metrics. vLLM has some 500 an engine; to learn so many takes two seconds."""

_SURROGATES = re.compile("[\ud800-\udfff]")
_STRINGS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_DIGITS = "a whole number has more than 4300 digits"
_BRACKETS = re.compile(r"[\[{]|[\]}]")


def clean_text(text: str) -> str:
    """Return the text with U+FFFD for every half of a surrogate pair, which neither UTF-8 nor Arrow can encode."""
    return _SURROGATES.sub("\ufffd", text)


def as_count(value: object) -> int | None:
    """Return a count as a whole number from 0 to `MAX_COUNT`; None for anything else.

    A float with no fraction is one, since some servers write 5.0; a bool, a text, NaN and a negative number are none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value <= MAX_COUNT or value != int(value):
        return None
    return int(value)


def decode_json(content: bytes | str, *, max_depth: int = MAX_DEPTH, allow_nan: bool = False) -> Any:
    """Decode JSON of foreign origin: UTF-8, with or without a byte order mark, its texts clean.

    Args:
        content: its size is bounded by whoever read it.
        max_depth: levels of lists and objects.
        allow_nan: let NaN and infinities through, as many writers of JSON do.

    Raises:
        ValueError: not UTF-8, not JSON, NaN or an infinity, or nested too deeply. The message is for the user.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content.removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    if _depth_above(text, max_depth):
        raise ValueError(f"nested more than {max_depth} levels deep")
    try:
        decoded = json.loads(text, parse_constant=None if allow_nan else _refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:
        raise ValueError(_DIGITS if "digits" in str(error) else str(error)) from error
    return _cleaned(decoded) if "\\u" in text or _SURROGATES.search(text) else decoded


def read_text(path: Path, max_bytes: int) -> str:
    """Read a UTF-8 file of a user, without its byte order mark.

    Raises:
        InputError: no such file, not to be read, larger than `max_bytes`, or not UTF-8.
    """
    content = read_bytes(path, max_bytes)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8 at byte {error.start}; save it as UTF-8") from error


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read a file, which may be a pipe, up to a bound.

    Raises:
        InputError: no such file, a name that cannot be one, not to be read, or larger than `max_bytes`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise InputError(f"{path}: cannot be read: no such file") from error
    except OSError as error:
        raise InputError(f"{str(path)[:200]}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL byte
        raise InputError(f"{str(path)[:200]!r}: cannot be the name of a file") from error
    if len(content) > max_bytes:
        raise InputError(f"{path}: larger than {megabytes(max_bytes)}")
    return content


def read_lines(
    path: Path, max_line_bytes: int = MAX_LINE_BYTES, max_bytes: int | None = None
) -> Iterator[tuple[int, str]]:
    """Yield the lines of a user's UTF-8 file with their numbers from 1, without their ends and the byte order mark.

    Lines end with a line feed, or a carriage return and a line feed, and with nothing else: a form feed, or a line
    separator of Unicode, is part of a prompt.

    Args:
        path: the file, which may be a pipe.
        max_line_bytes: of one line.
        max_bytes: of all lines, for a reader that keeps them; None: no limit.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or is longer; the message has the line's number.
    """
    name = path_name(path)
    try:
        with path.open("rb") as file:
            number = size = 0
            while line := file.readline(max_line_bytes + 2):
                number += 1
                size += len(line)
                if max_bytes is not None and size > max_bytes:
                    raise InputError(f"{name}: larger than {megabytes(max_bytes)}")
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                line = line.removesuffix(b"\n").removesuffix(b"\r")
                if len(line) > max_line_bytes:
                    raise InputError(f"{name}:{number}: a line longer than {megabytes(max_line_bytes)}")
                try:
                    yield number, line.decode()
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{name}:{number}: not UTF-8 at byte {error.start} of the line; save the file as UTF-8"
                    ) from error
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{name} cannot be read: this cannot be the name of a file") from error


def path_name(path: Path | str) -> str:
    """Return a path for a message: at most 200 characters, and quoted where it has some that are not printable."""
    text = str(path)[:200]
    return text if text.isprintable() else repr(text)


class BodyUnpacker(Protocol):
    """Unpacks the parts of a packed body."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield what a part unpacks to, in pieces that are small."""

    def end(self) -> None:
        """Check that the body is complete."""


async def read_body(response: aiohttp.ClientResponse, max_bytes: int, unpacker: BodyUnpacker | None = None) -> bytes:
    """Read the body of an answer up to a bound; the rest is not taken from the network.

    Args:
        response: the answer; with an unpacker, as it came.
        max_bytes: the bound, of what is unpacked too.
        unpacker: for a body that came packed.

    Raises:
        ValueError: it is larger, or cannot be unpacked.
        aiohttp.ClientError, OSError: it ended badly.
    """
    pieces: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        for piece in (part,) if unpacker is None else unpacker.pieces(part):
            size += len(piece)
            if size > max_bytes:
                response.close()
                raise ValueError(f"{response.url.path} answers with more than {megabytes(max_bytes)}")
            pieces.append(piece)
    if unpacker is not None:
        unpacker.end()
    return b"".join(pieces)


def one_line(text: str, longest: int) -> str:
    """Return a foreign text for a message: in one line, printable, and at most so many characters."""
    words = " ".join(text[: 10 * longest].split())
    shown = "".join(character if character.isprintable() else "\ufffd" for character in words)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def megabytes(size_bytes: int) -> str:
    """Return a size for a message: `64 MiB`."""
    return f"{size_bytes / MIB:.3g} MiB"


def _depth_above(text: str, limit: int) -> bool:
    """Return whether brackets outside texts are nested deeper than `limit`, without recursion."""
    if text.count("[") + text.count("{") <= limit:
        return False
    depth = 0
    for bracket in _BRACKETS.finditer(_STRINGS.sub("", text)):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > limit:
            return True
    return False


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {clean_text(key): _cleaned(item) for key, item in value.items()}
    return value
