"""An answer as it comes: server-sent events, or one JSON object, to times, token counts, finish reason and error.

Tokens are counted by the server's `usage`, never by events: an event can hold several tokens or none that shows. The
first token is the first event with content, or the finish event if none had any; the last token is the last event with
content or a finish reason, since an end token shows no text. Usage and `[DONE]` are neither.

A count that cannot be is none: zero tokens for an answer with content, more tokens than the answer has bytes, more
cached tokens than the prompt has.
"""

from collections.abc import Sequence
from typing import Any

from inference_energy.acquire.load.http.events import (
    USUAL_FINISH,
    Event,
    Usage,
    decode_ends,
    decode_events,
    error_text,
    has_content,
    read_finish,
    read_whole,
    shortened,
    text_of,
)
from inference_energy.acquire.load.http.request import RequestObserver
from inference_energy.contracts.load_client import ClientSettings
from inference_energy.contracts.outside import MIB, megabytes
from inference_energy.contracts.requests import RequestRecord

ERROR_CHARACTERS = 500
ERROR_BYTES = 2**14
"""Part of an error's body that is kept."""

MANY_BYTES = 4096
"""A chunk longer than this holds many events."""

MANY_PIECES = 4096

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class ExchangeError(Exception):
    """A request has failed; the message says why.

    Attributes:
        stale: the connection was a reused one, closed by the server before a byte of the answer: send it again.
    """

    def __init__(self, message: str, *, stale: bool = False) -> None:
        super().__init__(message)
        self.stale = stale


class SseAnswer:
    """The reader of an answer's body. It fills in the record as data come, so a broken answer keeps its times.

    Attributes:
        begun: whether a byte of the answer has come.

    Args:
        record: of the request.
        observer: told of the first token, and of chunks with `chunk_times`.
        stream: whether a stream was requested.
        chunk_times: report every chunk.
        keep_text: keep the answer's text.
        max_bytes: a larger body, unpacked, fails the request.
    """

    __slots__ = (
        "_answered",
        "_brief",
        "_carriage_return",
        "_chunk_times",
        "_events",
        "_failure",
        "_joined",
        "_left_bytes",
        "_max_bytes",
        "_observer",
        "_pieces",
        "_record",
        "_texts",
        "_whole",
        "begun",
    )

    def __init__(
        self,
        record: RequestRecord,
        observer: RequestObserver,
        *,
        stream: bool,
        chunk_times: bool,
        keep_text: bool,
        max_bytes: int = ClientSettings.max_answer_mib * MIB,
    ) -> None:
        self.begun = False
        self._record = record
        self._observer = observer
        self._whole = not stream
        self._chunk_times = chunk_times
        self._texts: list[str] | None = [] if keep_text else None
        self._brief = not chunk_times and not keep_text
        self._pieces: list[bytes] = []  # of an event that is not complete, or of an answer that is no stream
        self._joined = 0  # the first of the pieces, which are joined from smaller ones
        self._max_bytes = self._left_bytes = max_bytes
        self._answered = False  # whether there was content
        self._carriage_return = False
        self._events = 0
        self._failure: str | None = None

    @property
    def _size(self) -> int:
        return self._max_bytes - self._left_bytes

    @property
    def text(self) -> str | None:
        """The first choice's text so far, without reasoning and tool calls; None unless it was to be kept."""
        return None if self._texts is None else "".join(self._texts)

    def start(self, status_code: int) -> None:
        """Take the status of the answer, whose headers have come."""
        self.begun = True
        self._record.status_code = status_code
        if status_code != 200:
            self._whole = True

    def feed(self, data: bytes, now_ns: int) -> None:
        """Take a part of the body.

        Args:
            data: the part, not empty.
            now_ns: when it came, monotonic.

        Raises:
            ExchangeError: the answer is larger than is allowed.
        """
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise ExchangeError(self._too_large())
        if not self._events and not self._pieces:
            data = data.removeprefix(BYTE_ORDER_MARK)
            self._whole = self._whole or data.lstrip().startswith(b"{")  # the server does not stream
        if self._whole:
            if self._record.status_code == 200 or self._size - len(data) < ERROR_BYTES:
                self._hold(data)
            return
        if self._carriage_return or b"\r" in data:
            data = self._without_carriage_returns(data)
        if self._pieces or not data.endswith(b"\n\n"):
            data = self._complete_events(data)
        if data:
            events = decode_ends(data) if self._brief and len(data) > MANY_BYTES else None
            self._read_events(decode_events(data) if events is None else events, now_ns)

    def finish(self, now_ns: int) -> None:
        """End the answer: its body is complete.

        Raises:
            ExchangeError: the request failed: the status, an error event, or a stream that ended too early.
        """
        record = self._record
        record.end_ns = now_ns
        rest = b"".join(self._pieces)
        if record.status_code != 200:
            raise ExchangeError(f"status {record.status_code}: {shortened(rest, ERROR_CHARACTERS)}")
        if self._whole:
            self._read_whole(rest)
        elif rest.strip():
            self._read_events(decode_events(rest + b"\n\n"), now_ns)  # some servers leave out the last event's end
        if self._failure is not None:
            raise ExchangeError(self._failure)
        if record.finish_reason is None:
            if not self._events and not self._whole:
                begins = f": {shortened(rest)}" if rest.strip() else ""
                raise ExchangeError(f"the answer holds no event{begins}")
            raise ExchangeError("the answer ended without a finish_reason")

    def _read_events(self, events: Sequence[Event], now_ns: int) -> None:
        record = self._record
        with_content = 0
        finished = False
        usage: Usage | None = None
        for event in events:
            if event.error and self._failure is None:
                self._failure = error_text(event.error)[:ERROR_CHARACTERS]
            if event.usage is not None:
                usage = event.usage
            event_has_content = False
            for choice in event.choices or ():
                if choice.text or has_content(choice):
                    event_has_content = True
                    if self._texts is not None and choice.index == 0:
                        self._texts.append(text_of(choice))
                if choice.finish_reason and self._finish(choice.finish_reason):
                    finished = True
            with_content += event_has_content
        self._events += len(events)
        if with_content or finished:
            record.last_token_ns = now_ns
            if record.first_token_ns is None:
                record.first_token_ns = now_ns
                self._answered = with_content > 0
                self._observer.first_token(record)
        if usage is not None:
            self._read_usage(usage)
        if self._chunk_times and with_content:
            self._observer.chunk(record, now_ns, with_content, record.completion_tokens if usage else None)

    def _read_whole(self, body: bytes) -> None:
        """Take an answer that is no stream: the times of its tokens are not known."""
        try:
            event = read_whole(body)
        except ValueError as problem:
            raise ExchangeError(str(problem)) from None
        if event.error:
            self._failure = error_text(event.error)[:ERROR_CHARACTERS]
        for choice in event.choices or ():
            self._answered = self._answered or has_content(choice)
            if choice.index == 0:
                self._finish(choice.finish_reason)
                if self._texts is not None:
                    self._texts.append(text_of(choice))
        if event.usage is not None:
            self._read_usage(event.usage)

    def _finish(self, value: Any) -> bool:
        """Take a finish reason; return whether it says anything."""
        if value in USUAL_FINISH:
            self._record.finish_reason = value
            return True
        reason, failure = read_finish(value)
        if reason is None:
            return False
        self._record.finish_reason = reason
        if failure is not None and self._failure is None:
            self._failure = failure[:ERROR_CHARACTERS]
        return True

    def _read_usage(self, usage: Usage) -> None:
        """Take the server's counts, without those that cannot be."""
        record = self._record
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details is not None else None
        if completion is not None:
            unseen = usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else None
            if completion - (unseen or 0) > self._size or (self._answered and not completion):
                completion = None
        if cached is not None and prompt is not None and cached > prompt:
            cached = None
        record.prompt_tokens, record.completion_tokens, record.cached_tokens = prompt or None, completion, cached

    def _too_large(self) -> str:
        """Return why the request fails: its answer exceeds the bound."""
        text = f"larger than the client's limit of {megabytes(self._max_bytes)} an answer"
        if self._record.status_code != 200:
            begin = shortened(b"".join(self._pieces), ERROR_CHARACTERS)
            return f"status {self._record.status_code}, {text}: {begin}"
        return f"the answer is {text}"

    def _complete_events(self, data: bytes) -> bytes:
        """Return the complete events, with the rest of earlier parts; keep the new rest. Linear in the bytes."""
        pieces = self._pieces
        cut = data.rfind(b"\n\n") + 2
        if cut == 1:
            cut = 1 if pieces and data.startswith(b"\n") and pieces[-1].endswith(b"\n") else 0
        if not cut:
            if data:
                self._hold(data)
            return b""
        pieces.append(data[:cut])
        complete = b"".join(pieces)
        self._pieces = [data[cut:]] if cut < len(data) else []
        self._joined = 0
        return complete

    def _hold(self, data: bytes) -> None:
        """Keep a part until the rest comes; many small ones are joined, since each object takes 40 bytes more."""
        pieces = self._pieces
        pieces.append(data)
        if len(pieces) - self._joined >= MANY_PIECES:
            pieces[self._joined :] = [b"".join(pieces[self._joined :])]
            self._joined += 1

    def _without_carriage_returns(self, data: bytes) -> bytes:
        """Turn line ends into line feeds; a carriage return at the end may be half of one."""
        if self._carriage_return:
            data = b"\r" + data
        self._carriage_return = data.endswith(b"\r")
        if self._carriage_return:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
