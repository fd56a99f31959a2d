"""Reading a streamed completion: server-sent events into token times and usage.

Tokens are counted by the server's `usage`, never by events: one can hold several tokens or none that shows.
"""

import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from inference_energy.acquire.load.request import RequestRecord

EVENT_END = b"\n\n"


class StreamError(Exception):
    """The server reported an error inside a stream that began with status 200."""


async def read_stream(
    chunks: AsyncIterator[bytes], record: RequestRecord, on_content: Callable[[], None] = lambda: None
) -> None:
    """Read a completion's stream to its end, filling in the record as events come.

    Args:
        chunks: the body as it arrives.
        record: gets times, usage and finish reason; keeps what had come if the stream breaks.
        on_content: called for each event with content.

    Raises:
        StreamError: an error event, or a stream that ended before the request was finished.
    """
    rest = b""
    async for chunk in chunks:
        now_ns = time.monotonic_ns()
        *complete, rest = (rest + chunk.replace(b"\r\n", b"\n")).split(EVENT_END)
        for event in complete:
            if _take(event, now_ns, record):
                on_content()
    if rest.strip():
        _take(rest, time.monotonic_ns(), record)
    if record.finish_reason is None:
        raise StreamError("the stream ended before the request was finished")


def _take(event: bytes, now_ns: int, record: RequestRecord) -> bool:
    """Take in one event; whether it brought content."""
    payload = b"".join(line[5:].lstrip() for line in event.split(b"\n") if line.startswith(b"data:"))
    if not payload or payload == b"[DONE]":
        return False
    try:
        content = json.loads(payload)
    except json.JSONDecodeError as error:
        raise StreamError(f"an event is not JSON: {payload[:200]!r}") from error
    if content.get("error"):
        raise StreamError(_error_text(content["error"]))
    if usage := content.get("usage"):
        take_usage(usage, record)
    brought = False
    for choice in content.get("choices") or ():
        finish_reason = choice.get("finish_reason")
        has_content = bool(_content(choice))
        if has_content or finish_reason:
            # The last token may show no text (an end token, half a character), so the finish counts as its time.
            record.first_token_ns = record.first_token_ns or now_ns
            record.last_token_ns = now_ns
        if finish_reason:
            record.finish_reason = finish_reason
        brought = brought or has_content
    return brought


def take_usage(usage: dict[str, Any], record: RequestRecord) -> None:
    """Token counts from the server's `usage`."""
    record.prompt_tokens = usage.get("prompt_tokens")
    record.completion_tokens = usage.get("completion_tokens")
    details = usage.get("prompt_tokens_details") or {}
    record.cached_tokens = details.get("cached_tokens")


def _content(choice: dict[str, Any]) -> str | None:
    """Text of a completion's choice, or of a chat's delta; a chat's role event has none."""
    if "text" in choice:
        return str(choice["text"])
    delta = choice.get("delta") or {}
    content = delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning")
    return None if content is None else str(content)


def _error_text(error: Any) -> str:
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)
