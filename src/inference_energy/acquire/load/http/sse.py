"""An answer as it comes: server-sent events to times, token counts, finish reason and error.

Every event is parsed, so that content is recognized exactly; msgspec needs 0.4 us for one. A whole chunk is decoded at
once; anything unusual (comments, other fields, several lines, bad JSON) goes through a slower reader of the standard
(https://html.spec.whatwg.org/multipage/server-sent-events.html). A chunk is what one read of the socket brought.

Tokens are counted by the server's `usage`, never by events: an event can hold several tokens or none that shows. The
first token is the first event with content, or the finish event if none had any; the last token is the last event with
content or a finish reason, since an end token shows no text. Usage and `[DONE]` are neither.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from inference_energy.acquire.load.http.request import RequestObserver
from inference_energy.contracts.requests import RequestRecord

DONE = b"data: [DONE]\n\n"

LAST_EVENTS = 4
"""Events decoded at the end of a long chunk: finish reason, usage, `[DONE]`, and one to spare."""

FINISHED = (b'_reason":"', b'_reason": "')
COUNTED = (b'"usage":{', b'"usage": {')
"""Fields that must not be skipped, with the blanks of JSON writers or without."""

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


class Delta(msgspec.Struct, gc=False):
    """The addition of a chat's choice."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None


class Choice(msgspec.Struct, gc=False):
    """A choice of a completion (`text`) or of a chat (`delta`)."""

    text: str | None = None
    delta: Delta | None = None
    finish_reason: str | None = None
    index: int = 0


class PromptDetails(msgspec.Struct, gc=False):
    """Details of the prompt's tokens."""

    cached_tokens: Count | None = None


class Usage(msgspec.Struct, gc=False):
    """Token counts of the server."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: PromptDetails | None = None


class Event(msgspec.Struct, gc=False):
    """One event; `error` has no fixed form."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


_BAD_JSON = (msgspec.MsgspecError, ValueError, RecursionError)
_decode_event = msgspec.json.Decoder(Event).decode
_decode_lines = msgspec.json.Decoder(Event).decode_lines


def decode_events(data: bytes) -> Sequence[Event]:
    """Decode bytes that end with an event's end and have line feeds only; `[DONE]` is no event."""
    if data.endswith(DONE):
        data = data[: -len(DONE)]
        if not data:
            return ()
    if data.startswith(b"data: "):
        try:
            # A line feed within JSON text is escaped, so this touches nothing but the events' frames.
            events = _decode_lines(data[6:].replace(b"\n\ndata: ", b"\n"))
        except _BAD_JSON:
            return _decode_slowly(data)
        for event in events:
            if event.choices is None and event.usage is None and event.error is None:
                return _decode_slowly(data)
        return events
    return _decode_slowly(data)


def decode_ends(data: bytes) -> Sequence[Event] | None:
    """Decode the first and the last events of a long chunk, if those between can change nothing.

    A chunk has one time, so any event with content gives it; finish reason and usage come last. That halves the work
    for a burst of 128 tokens. An event between that is not JSON goes unnoticed.

    Args:
        data: as for `decode_events`.

    Returns:
        None where every event must be decoded: there may be an error, the first has no content, or a finish or counts
        came between and not at the end.
    """
    if b"error" in data:
        return None
    first_end = data.find(b"\n\n") + 2
    last_begin = len(data.rsplit(b"\n\n", LAST_EVENTS + 1)[0]) + 2
    if last_begin <= first_end:
        return None
    first, last = decode_events(data[:first_end]), decode_events(data[last_begin:])
    if not any(has_content(choice) for event in first for choice in event.choices or ()):
        return None
    counted = any(event.usage is not None for event in last)
    finished = any(choice.finish_reason is not None for event in last for choice in event.choices or ())
    if not finished and (counted or data.endswith(DONE) or _any_in(data, FINISHED, first_end, last_begin)):
        return None
    if not counted and _any_in(data, COUNTED, first_end, last_begin):
        return None
    return [*first, *last]


def _any_in(data: bytes, texts: Sequence[bytes], begin: int, end: int) -> bool:
    return any(data.find(text, begin, end) >= 0 for text in texts)


def has_content(choice: Choice) -> bool:
    """Return whether a choice brought text, reasoning or a tool call."""
    if choice.text:
        return True
    delta = choice.delta
    return delta is not None and bool(
        delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls or delta.refusal
    )


def text_of(choice: Choice) -> str:
    """Return the text that a choice brought, without reasoning and tool calls."""
    return choice.text or (choice.delta.content if choice.delta else None) or ""


def error_text(error: Any) -> str:
    """Return the message of an error in any form."""
    if isinstance(error, dict):
        message = error.get("message")
        return str(message if message else error)
    return str(error)


def read_json(data: bytes) -> Any:
    """Decode JSON that may hold text that is not UTF-8.

    Raises:
        ValueError: not JSON.
    """
    try:
        return json.loads(data.decode(errors="replace"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def as_event(content: dict[str, Any]) -> Event:
    """Read the usable parts of an event or an answer in an unexpected form."""
    choices = content.get("choices")
    error = content.get("error")
    if error is None and content.get("object") == "error":
        error = content
    return Event(
        [_as_choice(choice) for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else None,
        _as_usage(content.get("usage")),
        error or None,
    )


def _decode_slowly(data: bytes) -> list[Event]:
    return [event for block in data.split(b"\n\n") if (event := _read_block(block)) is not None]


def _read_block(block: bytes) -> Event | None:
    payload: list[bytes] = []
    is_error = False
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            payload.append(value)
        elif name == b"event":
            is_error = value == b"error"
    text = b"\n".join(payload).strip()
    if not text or text == b"[DONE]":
        return None
    try:
        event = _decode_event(text)
    except _BAD_JSON:
        event = None
    if event is not None and event.choices is not None and not is_error:
        return event
    try:
        content = read_json(text)
    except ValueError:
        return Event(error=f"an event is not JSON: {shortened(text)}")
    if not isinstance(content, dict):
        return Event(error=f"an event is not a JSON object: {shortened(text)}")
    event = as_event(content)
    if is_error and event.error is None:
        event.error = content
    return event


def shortened(data: bytes, limit: int = 200) -> str:
    """Return the beginning of some bytes as text."""
    return data[: 4 * limit].decode(errors="replace")[:limit]


def _as_choice(choice: dict[str, Any]) -> Choice:
    delta, index, reason = choice.get("delta", choice.get("message")), choice.get("index"), choice.get("finish_reason")
    return Choice(
        _as_text(choice.get("text")),
        _as_delta(delta) if isinstance(delta, dict) else None,
        None if reason is None else str(reason),
        index if isinstance(index, int) else 0,
    )


def _as_delta(delta: dict[str, Any]) -> Delta:
    calls = delta.get("tool_calls")
    return Delta(
        _as_text(delta.get("content")),
        _as_text(delta.get("reasoning_content")),
        _as_text(delta.get("reasoning")),
        _as_text(delta.get("refusal")),
        calls if isinstance(calls, list) else None,
    )


def _as_text(value: Any) -> str | None:
    """Return a text, or the joined texts of a list of parts."""
    if isinstance(value, list):
        return "".join(str(part.get("text") or "") for part in value if isinstance(part, dict))
    return value if isinstance(value, str) else None


def _as_usage(usage: Any) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    return Usage(
        _as_count(usage.get("prompt_tokens")),
        _as_count(usage.get("completion_tokens")),
        PromptDetails(_as_count(details.get("cached_tokens"))) if isinstance(details, dict) else None,
    )


def _as_count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62 else None


ERROR_CHARACTERS = 500
ERROR_BYTES = 2**14
"""Part of an error's body that is kept."""

MANY_BYTES = 4096
"""A chunk longer than this holds many events."""


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
        self, record: RequestRecord, observer: RequestObserver, *, stream: bool, chunk_times: bool, keep_text: bool
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
                if choice.finish_reason is not None:
                    finished = True
                    record.finish_reason = choice.finish_reason
            with_content += event_has_content
        self._events += len(events)
        if usage is not None:
            self._read_usage(usage)
        if with_content or finished:
            record.last_token_ns = now_ns
            if record.first_token_ns is None:
                record.first_token_ns = now_ns
                self._observer.first_token(record)
        if self._chunk_times and with_content:
            self._observer.chunk(record, now_ns, with_content, usage.completion_tokens if usage else None)

    def _read_whole(self, body: bytes) -> None:
        """Take an answer that is no stream: the times of its tokens are not known."""
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
            self._read_usage(event.usage)
        for choice in event.choices or ():
            if choice.index == 0:
                self._record.finish_reason = choice.finish_reason
                if self._texts is not None:
                    self._texts.append(text_of(choice))

    def _read_usage(self, usage: Usage) -> None:
        record, details = self._record, usage.prompt_tokens_details
        record.prompt_tokens = usage.prompt_tokens
        record.completion_tokens = usage.completion_tokens
        record.cached_tokens = details.cached_tokens if details is not None else None

    def _complete_events(self, data: bytes) -> bytes:
        """Return the complete events, with the rest of earlier parts; keep the new rest. Linear in the bytes."""
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
        """Turn line ends into line feeds; a carriage return at the end may be half of one."""
        if self._carriage_return:
            data = b"\r" + data
        self._carriage_return = data.endswith(b"\r")
        if self._carriage_return:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
