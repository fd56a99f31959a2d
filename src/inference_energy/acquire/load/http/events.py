"""Events of an answer: from bytes to text, finish reason, token counts and error, in whatever form servers write them.

Every event is parsed, so that content is recognized exactly; msgspec needs 0.4 us for one. A whole chunk is decoded at
once; anything unusual (comments, other fields, several lines, bad JSON) goes through a slower reader of the standard
(https://html.spec.whatwg.org/multipage/server-sent-events.html). A chunk is what one read of the socket brought.

All texts that leave this module can be encoded as UTF-8: what cannot is U+FFFD, see `contracts.outside`.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from inference_energy.contracts.outside import MAX_COUNT, MIB, as_count, decode_json, megabytes

DONE = b"data: [DONE]\n\n"

LAST_EVENTS = 4
"""Events decoded at the end of a long chunk: finish reason, usage, `[DONE]`, and one to spare."""

FINISHED = (b'_reason":"', b'_reason": "', b'_reason":{', b'_reason": {')
COUNTED = (b'"usage":{', b'"usage": {')
"""Fields that must not be skipped, with the blanks of JSON writers or without."""

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]


class Delta(msgspec.Struct, gc=False):
    """The addition of a chat's choice."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None


class Choice(msgspec.Struct, gc=False):
    """A choice of a completion (`text`) or of a chat (`delta`); `finish_reason` is as written, see `read_finish`."""

    text: str | None = None
    delta: Delta | None = None
    finish_reason: Any = None
    index: int = 0


class PromptDetails(msgspec.Struct, gc=False):
    """Details of the prompt's tokens."""

    cached_tokens: Count | None = None


class CompletionDetails(msgspec.Struct, gc=False):
    """Details of the generated tokens."""

    reasoning_tokens: Count | None = None


class Usage(msgspec.Struct, gc=False):
    """Token counts of the server; None where it gave none that can be read."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Event(msgspec.Struct, gc=False):
    """One event; `error` has no fixed form."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


class WholeChoice(Choice, gc=False):
    """A choice of an answer that is no stream: a chat has a `message`."""

    message: Delta | None = None


class WholeAnswer(msgspec.Struct, gc=False):
    """An answer that is no stream."""

    choices: list[WholeChoice] | None = None
    usage: Usage | None = None
    error: Any = None


_BAD_JSON = (msgspec.MsgspecError, ValueError, RecursionError)
_decode_event = msgspec.json.Decoder(Event).decode
_decode_lines = msgspec.json.Decoder(Event).decode_lines
_decode_whole = msgspec.json.Decoder(WholeAnswer).decode

MAX_ODD_BYTES = 4 * MIB
"""Largest JSON of an unexpected form that is decoded: as Python's objects it takes twenty times its size."""


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
    finished = any(
        choice.finish_reason and read_finish(choice.finish_reason)[0]
        for event in last
        for choice in event.choices or ()
    )
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
    message = error.get("message") if isinstance(error, dict) else None
    try:
        return str(message or error)
    except RecursionError:
        return "an error that is nested too deeply"


USUAL_FINISH = ("length", "stop")

NO_FINISH = frozenset(("", "null", "none", "nil", "undefined", "unset", "unspecified", "unfinished", "not_finished"))
"""Words in the place of a finish reason that say that there is none yet: SGLang and Ollama wrote an empty text in each
event, TensorRT-LLM has `not_finished`."""

_NOT_WELL = re.compile(
    r"abort|error|cancel|fail|exception|timed?[ _-]?out|insufficient|overload|interrupt|disconnect|reject|preempt|"
    r"evict|deadline|unavailable|malformed|kill|crash|dropped|shutdown"
)
"""Finish reasons of answers that did not end well: `abort` and `error` of vLLM and SGLang, `cancelled` and `timed_out`
of TensorRT-LLM, `insufficient_system_resource` of DeepSeek, `network_error` of GLM."""

FINISH_CHARACTERS = 100
_FINISH_NAMES = ("type", "reason", "finish_reason", "name")


def read_finish(value: Any) -> tuple[str | None, str | None]:
    """Read a `finish_reason` in any form.

    Args:
        value: a text, or as SGLang writes it an object such as `{"type": "abort", "message": "..."}`.

    Returns:
        The reason in small letters, None where the value says nothing; and why the request has failed, None where it
        has not.
    """
    if not value:
        return None, None
    if isinstance(value, str):
        return _named_finish(value[:FINISH_CHARACTERS])
    if not isinstance(value, dict):
        return _named_finish(str(value)[:FINISH_CHARACTERS])
    names = (value.get(key) for key in _FINISH_NAMES)
    name = next((name for name in names if isinstance(name, str)), None)
    if name is None and not any(value.values()) and value.keys() <= {*_FINISH_NAMES, "message"}:
        return None, None
    reason, failure = _named_finish((error_text(value) if name is None else name)[:FINISH_CHARACTERS])
    if failure is not None and value.get("message"):
        failure = f"{failure}: {error_text(value)}"
    return reason, failure


@lru_cache(maxsize=256)
def _named_finish(text: str) -> tuple[str | None, str | None]:
    reason = text.strip().lower()
    if reason in NO_FINISH:
        return None, None
    return reason, f"the server ended the answer with finish_reason {reason}" if _NOT_WELL.search(reason) else None


def read_json(data: bytes) -> Any:
    """Decode JSON that may hold text that is not UTF-8, and NaN.

    Raises:
        ValueError: not JSON, nested too deeply, or larger than `MAX_ODD_BYTES`.
    """
    if len(data) > MAX_ODD_BYTES:
        raise ValueError(f"of an unknown form and larger than {megabytes(MAX_ODD_BYTES)}")
    return decode_json(data.decode(errors="replace"), allow_nan=True)


def read_whole(body: bytes) -> Event:
    """Read an answer that is no stream.

    Raises:
        ValueError: it is no JSON object, see `read_json`; the message is for the user.
    """
    try:
        answer = _decode_whole(body)
    except _BAD_JSON:
        answer = None
    if answer is not None and answer.choices is not None:
        for choice in answer.choices:
            choice.delta = choice.delta or choice.message
        return Event([*answer.choices], answer.usage, answer.error or None)
    try:
        content = read_json(body)
    except ValueError as problem:
        raise ValueError(f"the answer is not a JSON object{why_not(problem)}: {shortened(body)}") from None
    if not isinstance(content, dict):
        raise ValueError(f"the answer is not a JSON object: {shortened(body)}")
    return as_event(content)


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
    except ValueError as problem:
        return Event(error=f"an event is not JSON{why_not(problem)}: {shortened(text)}")
    if not isinstance(content, dict):
        return Event(error=f"an event is not a JSON object: {shortened(text)}")
    event = as_event(content)
    if is_error and event.error is None:
        event.error = content
    return event


def why_not(problem: ValueError) -> str:
    """Return in brackets why JSON could not be read, where it is more than that it is none."""
    return "" if "not JSON" in str(problem) else f" ({problem})"


def shortened(data: bytes, limit: int = 200) -> str:
    """Return the beginning of some bytes as text."""
    return data[: 4 * limit].decode(errors="replace")[:limit]


def _as_choice(choice: dict[str, Any]) -> Choice:
    delta, index, reason = choice.get("delta", choice.get("message")), choice.get("index"), choice.get("finish_reason")
    return Choice(
        _as_text(choice.get("text")),
        _as_delta(delta) if isinstance(delta, dict) else None,
        reason,
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
    details, more = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return Usage(
        as_count(usage.get("prompt_tokens")),
        as_count(usage.get("completion_tokens")),
        PromptDetails(as_count(details.get("cached_tokens"))) if isinstance(details, dict) else None,
        CompletionDetails(as_count(more.get("reasoning_tokens"))) if isinstance(more, dict) else None,
    )
