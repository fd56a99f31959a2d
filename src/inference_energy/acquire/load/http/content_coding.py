"""Answers that come packed (RFC 9110, 8.4): gzip and deflate are unpacked as they arrive, others refused by name.

The client asks for none (`Accept-Encoding: identity`), but gateways pack all the same. Output is handed on in pieces of
at most `PIECE_BYTES`, so an answer that unpacks to a thousand times its size takes no more memory than any other;
whoever takes them bounds their sum.
"""

import zlib
from collections.abc import Iterator
from typing import Protocol

from inference_energy.acquire.load.http.sse import ExchangeError

PIECE_BYTES = 2**18

_GZIP, _ZLIB, _RAW = 31, 15, -15
"""zlib's `wbits` of the formats."""


class Unpacker:
    """Unpacks one body.

    Args:
        coding: `gzip` or `deflate`, which may be zlib's format or the raw one.
    """

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._waiting = b""  # the first bytes, until they show the format
        self._stream = zlib.decompressobj(_GZIP) if coding == "gzip" else None
        self._begun = False

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield what a part of the body unpacks to.

        Raises:
            ValueError: it is not in that coding, or goes on after its end.
        """
        self._begun = self._begun or bool(data)
        if self._stream is None:
            data = self._waiting = self._waiting + data
            if len(data) < 2:
                return
            is_zlib = data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self._stream = zlib.decompressobj(_ZLIB if is_zlib else _RAW)
        more = bool(data)
        while more:
            if self._stream.eof:
                data = self._after_the_end(data)
                if not data:
                    return
            try:
                piece = self._stream.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise ValueError(f"the answer says Content-Encoding: {self._coding}, and is not: {error}") from error
            if piece:
                yield piece
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            # A full piece may have left output inside, even where all input was taken.
            more = bool(data) or (len(piece) == PIECE_BYTES and not self._stream.eof)

    def end(self) -> None:
        """Check that the body is complete.

        Raises:
            ValueError: it was cut off.
        """
        if self._begun and (self._stream is None or not self._stream.eof):
            raise ValueError(f"the {self._coding} answer was cut off")

    def _after_the_end(self, data: bytes) -> bytes:
        """Take what follows a stream: with gzip another one, or zeros that fill up a block."""
        rest = data.lstrip(b"\0") if self._coding == "gzip" else data
        if rest and (self._coding != "gzip" or not b"\x1f\x8b".startswith(rest[:2])):
            raise ValueError(f"the {self._coding} answer goes on after its end")
        if rest:
            self._stream = zlib.decompressobj(_GZIP)
        return rest


def unpacker_for(coding: str) -> Unpacker | None:
    """Return what unpacks a body with this Content-Encoding; None where it is not packed.

    Raises:
        ValueError: no such unpacker; the message names the coding.
    """
    names = [name for part in coding.lower().split(",") if (name := part.strip()) not in ("", "identity")]
    if not names:
        return None
    name = names[0].removeprefix("x-")
    if len(names) > 1 or name not in ("gzip", "deflate"):
        shown = "".join(char if char.isprintable() else "\ufffd" for char in ", ".join(names))[:100]
        raise ValueError(
            f"the answer is packed (Content-Encoding: {shown}), though Accept-Encoding: identity was sent; only gzip "
            "and deflate are unpacked: switch the packing off at the server or gateway"
        )
    return Unpacker(name)


class Answer(Protocol):
    """What a transport feeds: `SseAnswer`, or an answer that unpacks for one."""

    begun: bool

    def start(self, status_code: int) -> None:
        """Take the status."""

    def feed(self, data: bytes, now_ns: int) -> None:
        """Take a part of the body."""

    def finish(self, now_ns: int) -> None:
        """Take the end of the body."""


class PackedAnswer:
    """An answer whose body comes packed; it unpacks and hands on.

    Args:
        answer: takes the unpacked body.
        coding: the header Content-Encoding.
        status_code: of the answer, for messages.
    """

    def __init__(self, answer: Answer, coding: str, status_code: int) -> None:
        self.begun = True
        self._answer = answer
        self._before = "" if status_code == 200 else f"status {status_code}: "
        self._refused: str | None = None
        try:
            self._unpacker = unpacker_for(coding)
        except ValueError as error:
            self._refused = str(error)

    def start(self, status_code: int) -> None:
        """Hand the status on."""
        self._answer.start(status_code)

    def feed(self, data: bytes, now_ns: int) -> None:
        """Unpack a part of the body.

        Raises:
            ExchangeError: it cannot be unpacked.
        """
        self._fail_if_refused()
        if self._unpacker is None:
            self._answer.feed(data, now_ns)
            return
        try:
            for piece in self._unpacker.pieces(data):
                self._answer.feed(piece, now_ns)
        except ValueError as error:
            raise ExchangeError(f"{self._before}{error}") from None

    def finish(self, now_ns: int) -> None:
        """End the body.

        Raises:
            ExchangeError: it was cut off or cannot be unpacked; or as `SseAnswer.finish`.
        """
        self._fail_if_refused()
        try:
            if self._unpacker is not None:
                self._unpacker.end()
        except ValueError as error:
            raise ExchangeError(f"{self._before}{error}") from None
        self._answer.finish(now_ns)

    def _fail_if_refused(self) -> None:
        if self._refused is not None:
            raise ExchangeError(f"{self._before}{self._refused}")
