"""An answer as it comes: bytes to times, token counts, finish reason and error.

Tokens are counted by the server's `usage`, never by events: one can hold several tokens or none that shows. The first
token is the first event with content, or the finish event if none had any; the last token is the last event with
content or a finish reason, for an end token shows no text. Usage and `[DONE]` are neither.
"""

from collections.abc import Sequence

from inference_energy.acquire.load.exchange.events import (
    Event,
    Usage,
    as_event,
    decode_ends,
    decode_events,
    error_text,
    has_content,
    read_json,
    shortened,
    text_of,
)
from inference_energy.acquire.load.exchange.observer import Observer
from inference_energy.acquire.load.exchange.request import RequestRecord

ERROR_CHARACTERS = 500
ERROR_BYTES = 2**14
"""As much of an error's body is kept."""

MANY_BYTES = 4096
"""An arrival longer than this holds many events."""


class ExchangeError(Exception):
    """A request has failed; the message says why.

    Attributes:
        stale: the connection was a reused one, closed by the server before a byte of the answer: send it again.
    """

    def __init__(self, message: str, *, stale: bool = False) -> None:
        super().__init__(message)
        self.stale = stale


class Answer:
    """Takes in the body of an answer and fills in the record; what had come when it breaks is kept there.

    Attributes:
        begun: whether a byte of the answer has come.

    Args:
        record: of the request.
        observer: told of the first token, and of chunks if asked to.
        stream: whether a stream was asked for.
        chunk_times: tell of every arrival.
        keep_text: keep the answer's text.
    """

    __slots__ = (
        "_brief",
        "_carriage_return",
        "_chunk_times",
        "_events",
        "_failure",
        "_observer",
        "_pieces",
        "_record",
        "_size",
        "_texts",
        "_whole",
        "begun",
    )

    def __init__(
        self, record: RequestRecord, observer: Observer, *, stream: bool, chunk_times: bool, keep_text: bool
    ) -> None:
        self.begun = False
        self._record = record
        self._observer = observer
        self._whole = not stream
        self._chunk_times = chunk_times
        self._texts: list[str] | None = [] if keep_text else None
        self._brief = not chunk_times and not keep_text
        self._pieces: list[bytes] = []  # of an event that is not complete, or of an answer that is no stream
        self._size = 0
        self._carriage_return = False
        self._events = 0
        self._failure: str | None = None

    @property
    def text(self) -> str | None:
        """The text so far of the first choice, without reasoning and tool calls; None unless it was to be kept."""
        return None if self._texts is None else "".join(self._texts)

    def start(self, status_code: int) -> None:
        """The headers have come."""
        self.begun = True
        self._record.status_code = status_code
        if status_code != 200:
            self._whole = True

    def feed(self, data: bytes, now_ns: int) -> None:
        """A part of the body has come.

        Args:
            data: the part, not empty.
            now_ns: when it came.
        """
        if not self._whole and not self._events and not self._pieces and data.lstrip().startswith(b"{"):
            self._whole = True  # the server does not stream
        if self._whole:
            if self._record.status_code == 200 or self._size < ERROR_BYTES:
                self._pieces.append(data)
                self._size += len(data)
            return
        if self._carriage_return or b"\r" in data:
            data = self._without_carriage_returns(data)
        if self._pieces or not data.endswith(b"\n\n"):
            data = self._complete_events(data)
        if data:
            events = decode_ends(data) if self._brief and len(data) > MANY_BYTES else None
            self._take(decode_events(data) if events is None else events, now_ns)

    def finish(self, now_ns: int) -> None:
        """The body is complete.

        Raises:
            ExchangeError: the request failed: the status, an error event, or a stream that ended too early.
        """
        record = self._record
        record.end_ns = now_ns
        rest = b"".join(self._pieces)
        if record.status_code != 200:
            raise ExchangeError(f"status {record.status_code}: {shortened(rest, ERROR_CHARACTERS)}")
        if self._whole:
            self._take_whole(rest)
        elif rest.strip():
            self._take(decode_events(rest + b"\n\n"), now_ns)  # some servers leave out the last event's end
        if self._failure is not None:
            raise ExchangeError(self._failure)
        if record.finish_reason is None:
            if not self._events and not self._whole:
                begins = f": {shortened(rest)}" if rest.strip() else ""
                raise ExchangeError(f"the answer holds no event{begins}")
            raise ExchangeError("the answer ended without a finish_reason")

    def _take(self, events: Sequence[Event], now_ns: int) -> None:
        record = self._record
        with_content = 0
        finished = False
        usage: Usage | None = None
        for event in events:
            if event.error and self._failure is None:
                self._failure = error_text(event.error)[:ERROR_CHARACTERS]
            if event.usage is not None:
                usage = event.usage
            brought = False
            for choice in event.choices or ():
                if choice.text or has_content(choice):
                    brought = True
                    if self._texts is not None and choice.index == 0:
                        self._texts.append(text_of(choice))
                if choice.finish_reason is not None:
                    finished = True
                    record.finish_reason = choice.finish_reason
            with_content += brought
        self._events += len(events)
        if usage is not None:
            self._take_usage(usage)
        if with_content or finished:
            record.last_token_ns = now_ns
            if record.first_token_ns is None:
                record.first_token_ns = now_ns
                self._observer.first_token(record)
        if self._chunk_times and with_content:
            self._observer.chunk(record, now_ns, with_content, usage.completion_tokens if usage else None)

    def _take_whole(self, body: bytes) -> None:
        """An answer that is no stream: when its tokens came is not known."""
        try:
            content = read_json(body)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise ExchangeError(f"the answer is not a JSON object: {shortened(body)}")
        event = as_event(content)
        if event.error:
            self._failure = error_text(event.error)[:ERROR_CHARACTERS]
        if event.usage is not None:
            self._take_usage(event.usage)
        for choice in event.choices or ():
            if choice.index == 0:
                self._record.finish_reason = choice.finish_reason
                if self._texts is not None:
                    self._texts.append(text_of(choice))

    def _take_usage(self, usage: Usage) -> None:
        record, details = self._record, usage.prompt_tokens_details
        record.prompt_tokens = usage.prompt_tokens
        record.completion_tokens = usage.completion_tokens
        record.cached_tokens = details.cached_tokens if details is not None else None

    def _complete_events(self, data: bytes) -> bytes:
        """All that is complete, with what was left before; the rest is left for later. Linear in what has come."""
        pieces = self._pieces
        cut = data.rfind(b"\n\n") + 2
        if cut == 1:
            cut = 1 if pieces and data.startswith(b"\n") and pieces[-1].endswith(b"\n") else 0
        if not cut:
            if data:
                pieces.append(data)
            return b""
        pieces.append(data[:cut])
        complete = b"".join(pieces)
        self._pieces = [data[cut:]] if cut < len(data) else []
        return complete

    def _without_carriage_returns(self, data: bytes) -> bytes:
        """Line ends as line feeds; a carriage return at the end may be half of one."""
        if self._carriage_return:
            data = b"\r" + data
        self._carriage_return = data.endswith(b"\r")
        if self._carriage_return:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
