"""Answers as JSON and as events, for completions and for chats, as vLLM writes them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Style:
    """How one of the two endpoints writes.

    Attributes:
        prefix: of answers' ids.
        whole, part: the `object` of an answer and of an event.
        opens: JSON before a token's text; `closes`: after it.
        is_chat: whether a first event names the role.
    """

    prefix: str
    whole: str
    part: str
    opens: str
    closes: str
    is_chat: bool


COMPLETION = Style("cmpl", "text_completion", "text_completion", '"text":', "", False)
CHAT = Style("chatcmpl", "chat.completion", "chat.completion.chunk", '"delta":{"content":', "}", True)


def compact(content: Any) -> str:
    """JSON without spaces."""
    return json.dumps(content, separators=(",", ":"))


def event(content: Any) -> bytes:
    """One server-sent event."""
    return f"data: {compact(content)}\n\n".encode()


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int | None = None) -> dict[str, Any]:
    """Token counts; those from the cache only where they are told."""
    counts: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }
    return counts if cached_tokens is None else counts | {"prompt_tokens_details": {"cached_tokens": cached_tokens}}


class EventParts:
    """The bytes around a token's text in a choice's events, made once for each choice.

    Attributes:
        opening, closing: before the text, and after it in all events but the last.
        bytes_around: their lengths together.
        is_chat: whether a first event names the role.
    """

    def __init__(self, style: Style, common: dict[str, Any], index: int) -> None:
        self._style = style
        self.is_chat = style.is_chat
        self._head = f'data: {compact(common)[:-1]},"choices":[{{"index":{index},'
        self.opening = f"{self._head}{style.opens}".encode()
        self.closing = self.end(None, None)
        self.bytes_around = len(self.opening) + len(self.closing)

    def end(self, reason: str | None, counts: dict[str, Any] | None) -> bytes:
        """What follows the text, with a finish reason and usage where there are any."""
        finish = f',"logprobs":null,"finish_reason":{compact(reason)}' + (',"stop_reason":null' if reason else "")
        told = "" if counts is None else f',"usage":{compact(counts)}'
        return f"{self._style.closes}{finish}}}]{told}}}\n\n".encode()

    def role(self, counts: dict[str, Any] | None) -> bytes:
        """The first event of a chat."""
        told = "" if counts is None else f',"usage":{compact(counts)}'
        delta = '"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null'
        return f"{self._head}{delta}}}]{told}}}\n\n".encode()


def whole_choice(style: Style, index: int, text: str, reason: str) -> dict[str, Any]:
    """A choice of an answer that is not streamed."""
    if style.is_chat:
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "tool_calls": []}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": reason, "stop_reason": None}
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason, "stop_reason": None}


def common_part(name: str, kind: str, created: int, model: str) -> dict[str, Any]:
    """What an answer and each of its events begin with."""
    return {"id": name, "object": kind, "created": created, "model": model}


def model_list(names: Sequence[str], root: str, created: int, max_model_len: int) -> dict[str, Any]:
    """GET /v1/models, with vLLM's fields."""
    permission = {
        "id": "modelperm-simulated",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": False,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    card = {"object": "model", "created": created, "owned_by": "simulated", "root": root, "parent": None}
    return {
        "object": "list",
        "data": [{"id": name, **card, "max_model_len": max_model_len, "permission": [permission]} for name in names],
    }
