"""Server-sent events of a completion: bytes to what they say.

Every event is parsed, so what counts as content is exact; msgspec needs 0.4 us for one. A whole arrival is decoded at
once; anything unusual (comments, other fields, several lines, bad JSON) goes through a slower reader of the standard
(https://html.spec.whatwg.org/multipage/server-sent-events.html).
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

DONE = b"data: [DONE]\n\n"

LAST_EVENTS = 4
"""Of a long arrival, so many at its end are looked at: finish reason, usage, `[DONE]`, and one to spare."""

FINISHED = (b'_reason":"', b'_reason": "')
COUNTED = (b'"usage":{', b'"usage": {')
"""What must not be passed over, with the blanks of JSON writers or without."""

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


class Delta(msgspec.Struct, gc=False):
    """What a chat's choice adds."""

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
    """One event; `error` is whatever the server says there."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


_BAD_JSON = (msgspec.MsgspecError, ValueError, RecursionError)
_decode_event = msgspec.json.Decoder(Event).decode
_decode_lines = msgspec.json.Decoder(Event).decode_lines


def decode_events(data: bytes) -> Sequence[Event]:
    """Events of bytes that end with an event's end and have line feeds only; `[DONE]` is none."""
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
    """The first event of many that came together and the last ones, if those between can change nothing.

    All of an arrival has one time, so any event with content gives it; finish reason and usage come last. That halves
    the work for a burst of 128 tokens. An event between that is not JSON goes unnoticed.

    Args:
        data: as of `decode_events`.

    Returns:
        None where every event must be looked at: there may be an error, the first has no content, or a finish or
        counts came between and not at the end.
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


def _any_in(data: bytes, wanted: Sequence[bytes], begin: int, end: int) -> bool:
    return any(data.find(text, begin, end) >= 0 for text in wanted)


def has_content(choice: Choice) -> bool:
    """Whether a choice brought text, reasoning or a tool call."""
    if choice.text:
        return True
    delta = choice.delta
    return delta is not None and bool(
        delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls or delta.refusal
    )


def text_of(choice: Choice) -> str:
    """Text that a choice brought, without reasoning and tool calls."""
    return choice.text or (choice.delta.content if choice.delta else None) or ""


def error_text(error: Any) -> str:
    """The message of an error, of whatever form."""
    if isinstance(error, dict):
        message = error.get("message")
        return str(message if message else error)
    return str(error)


def read_json(data: bytes) -> Any:
    """JSON that may hold text that is not UTF-8.

    Raises:
        ValueError: not JSON.
    """
    try:
        return json.loads(data.decode(errors="replace"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def as_event(content: dict[str, Any]) -> Event:
    """What can be understood of an event or an answer whose form is not quite as expected."""
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
    """The beginning of some bytes as text."""
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
    """A text, or that of a list of parts."""
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
