"""Responses of the live server, as JSON and as events, written as vLLM writes them.

Tokens go from the step loop straight to the connection; no task wakes for a token. The step loop calls `deliver` of
each request in the batch, which writes an almost finished event to the transport: 100 streams cost a core 0.2 ms a
step. A client that reads slowly or is gone costs memory at most, never time.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from inference_energy.bench.live.live_request import LiveRequest
from inference_energy.bench.live.protocol import (
    MESSAGE,
    FaultKind,
    Generation,
    RefusedError,
    crash,
    error_content,
)
from inference_energy.bench.live.tokens import Tokenizer

DONE = b"data: [DONE]\n\n"

Abort = Callable[[LiveRequest, str], None]
SentChunk = Callable[[int, int, int, int], None]


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


class Usage(TypedDict):
    """Token counts of an answer; `prompt_tokens_details` only where cached tokens are reported."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: NotRequired[dict[str, int]]


class CommonFields(TypedDict):
    """Fields that an answer and each of its events begin with."""

    id: str
    object: str
    created: int
    model: str


def compact_json(content: Any) -> str:
    """JSON without spaces."""
    return json.dumps(content, separators=(",", ":"))


def event(content: Any) -> bytes:
    """One server-sent event."""
    return f"data: {compact_json(content)}\n\n".encode()


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int | None = None) -> Usage:
    """Return token counts; those from the cache only where they are reported."""
    counts: Usage = {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }
    if cached_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
    return counts


class EventParts:
    """The bytes around a token's text in a choice's events, made once for each choice.

    Attributes:
        opening, closing: before the text, and after it in all events but the last.
        bytes_around: their lengths together.
        is_chat: whether a first event names the role.
    """

    def __init__(self, style: Style, common: CommonFields, index: int) -> None:
        self._style = style
        self.is_chat = style.is_chat
        self._head = f'data: {compact_json(common)[:-1]},"choices":[{{"index":{index},'
        self.opening = f"{self._head}{style.opens}".encode()
        self.closing = self.end(None, None)
        self.bytes_around = len(self.opening) + len(self.closing)

    def end(self, reason: str | None, counts: Usage | None) -> bytes:
        """Return the bytes after the text, with a finish reason and usage if given."""
        finish = f',"logprobs":null,"finish_reason":{compact_json(reason)}' + (',"stop_reason":null' if reason else "")
        usage_json = "" if counts is None else f',"usage":{compact_json(counts)}'
        return f"{self._style.closes}{finish}}}]{usage_json}}}\n\n".encode()

    def role(self, counts: Usage | None) -> bytes:
        """The first event of a chat."""
        usage_json = "" if counts is None else f',"usage":{compact_json(counts)}'
        delta = '"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null'
        return f"{self._head}{delta}}}]{usage_json}}}\n\n".encode()


def whole_choice(style: Style, index: int, text: str, reason: str) -> dict[str, Any]:
    """A choice of an answer that is not streamed."""
    if style.is_chat:
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "tool_calls": []}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": reason, "stop_reason": None}
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason, "stop_reason": None}


def common_part(name: str, kind: str, created: int, model: str) -> CommonFields:
    """Return the fields that an answer and each of its events begin with."""
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


class BenchAnswer:
    """One HTTP response with a choice for each prompt.

    Attributes:
        choices: the requests behind it.
        done: when all of them have ended; its exception is a refusal.
    """

    def __init__(self, transport: asyncio.Transport, fault: FaultKind | None, stall_s: float, abort: Abort) -> None:
        self.choices: list[AnswerChoice] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport = transport
        self.fault = fault
        self.stall_s = stall_s
        self._abort = abort
        self._left = 0

    def add(self, choice: "AnswerChoice") -> None:
        """Add a choice; a fault happens to the first."""
        if self.fault is not None and not self.choices:
            choice.fails_at = max(1, choice.output_tokens // 2)
        self.choices.append(choice)
        self._left += 1

    def ended(self, choice: "AnswerChoice") -> None:
        """Note that a choice has all its tokens."""
        self._left -= 1
        if not self._left:
            self.complete()

    def complete(self) -> None:
        """Finish, since all choices have ended."""
        if not self.done.done():
            self.done.set_result(None)

    def inject_fault(self) -> None:
        """Make the fault of this answer happen now, before the token that is due."""
        if self.fault == "crash":
            crash()
        elif self.fault == "disconnect":
            self.transport.abort()
        elif self.fault == "error event":
            for choice in self.choices:
                self._abort(choice, "error")
            self.fail()

    def fail(self) -> None:
        """Send an error to the client."""
        if not self.done.done():
            self.done.set_exception(RefusedError(500, MESSAGE))

    def counts(self, details: bool) -> Usage:
        """Usage of all choices; as with vLLM, cached tokens are those of the last."""
        cached = self.choices[-1].cached_tokens if details else None
        prompts = sum(choice.prompt_tokens for choice in self.choices)
        return usage(prompts, sum(choice.delivered for choice in self.choices), cached)


class AnswerChoice(LiveRequest):
    """A request whose tokens are kept until all are there.

    Attributes:
        answer: the response that it belongs to.
        fails_at: the token at which the answer's fault happens; 0 for none.
    """

    __slots__ = ("answer", "fails_at", "first", "index")

    def __init__(self, answer: BenchAnswer, index: int, first: int, *values: Any, **options: Any) -> None:
        super().__init__(*values, **options)
        self.answer = answer
        self.index = index
        self.first = first
        self.fails_at = 0

    def deliver(self, due_ns: int) -> None:
        """Count a token."""
        self.delivered += 1
        if self.delivered == self.fails_at:
            self.answer.inject_fault()
        if self.delivered == self.output_tokens:
            self.answer.ended(self)


class StreamAnswer(BenchAnswer):
    """A response whose tokens are sent as they come.

    Args:
        transport: the connection, whose headers are sent.
        chunked: whether the body is sent in chunks, as HTTP/1.1 has it.
        common: what each event begins with.
        body: the request.
        details: whether usage reports cached tokens.
        sent: is usage_json of each token sent: request, token, due, sent.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        fault: FaultKind | None,
        stall_s: float,
        abort: Abort,
        *,
        chunked: bool,
        common: CommonFields,
        body: Generation,
        details: bool,
        sent: SentChunk,
    ) -> None:
        super().__init__(transport, fault, stall_s, abort)
        options = body.stream_options
        self.chunked = chunked
        self.sent = sent
        self.continuous = bool(options and options.include_usage and options.continuous_usage_stats)
        self._common = common
        self._include_usage = bool(options and options.include_usage)
        self._details = details
        self._held: list[tuple[bytes, int, int, int]] | None = None

    def write(self, data: bytes, request_id: int, token: int, due_ns: int) -> None:
        """Put a token's event onto the connection, unless the stream is stalled."""
        if self._held is not None:
            self._held.append((data, request_id, token, due_ns))
        elif not self.transport.is_closing():
            self.transport.write(data)
            self.sent(request_id, token, due_ns, time.monotonic_ns())

    def framed(self, data: bytes) -> bytes:
        """Bytes of the body as they are sent."""
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data

    def complete(self) -> None:
        """Send the usage, if it was asked for, and the end."""
        if self._held is not None:
            return
        ending = DONE
        if self._include_usage:
            ending = event({**self._common, "choices": [], "usage": self.counts(self._details)}) + DONE
        self._close_with(ending)

    def inject_fault(self) -> None:
        """See `BenchAnswer`."""
        if self.fault == "stall":
            self._held = []
            self.done.get_loop().call_later(self.stall_s, self._release)
        else:
            super().inject_fault()

    def fail(self) -> None:
        """Send an error within the stream, since the status has been sent."""
        self._close_with(event(error_content(500, MESSAGE)) + DONE)

    def _close_with(self, ending: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(self.framed(ending))
        if not self.done.done():
            self.done.set_result(None)

    def _release(self) -> None:
        held, self._held = self._held or [], None
        for data, request_id, token, due_ns in held:
            self.write(data, request_id, token, due_ns)
        if not self._left:
            self.complete()


class StreamChoice(AnswerChoice):
    """A request whose tokens are sent as they come."""

    __slots__ = ("_around", "_closing", "_opening", "_parts", "_said", "_special", "_stream", "_tokenizer")

    def __init__(
        self,
        answer: StreamAnswer,
        style: Style,
        common: CommonFields,
        tokenizer: Tokenizer,
        *values: Any,
        **options: Any,
    ) -> None:
        super().__init__(answer, *values, **options)
        self._stream = answer
        self._tokenizer = tokenizer
        self._said = tokenizer.token_json
        self._parts = parts = EventParts(style, common, self.index)
        self._around = parts.bytes_around
        self._opening, self._closing = parts.opening, parts.closing + (b"\r\n" if answer.chunked else b"")
        self._special = 1

    def deliver(self, due_ns: int) -> None:
        """Send the next token."""
        index = self.delivered
        self.delivered = index + 1
        if index + 1 >= self._special:
            self._deliver_special(index, due_ns)
            return
        text = self._said(self._tokenizer.nth(self.first, index))
        data = self._opening + text + self._closing
        if self._stream.chunked:
            data = b"%x\r\n%b" % (self._around + len(text), data)
        self._stream.write(data, self.request_id, index + 1, due_ns)

    def _deliver_special(self, index: int, due_ns: int) -> None:
        """Send the first token, the last, one with a fault, or any where each event reports usage."""
        answer, token = self._stream, index + 1
        if token == self.fails_at:
            answer.inject_fault()
            if answer.fault in ("error event", "disconnect"):
                self.delivered = index
                self._special = self.output_tokens + 1
                return
        counts = usage(self.prompt_tokens, token) if answer.continuous else None
        is_last = token == self.output_tokens
        text = self._said(self._tokenizer.nth(self.first, index))
        data = answer.framed(self._opening + text + self._parts.end(self.reason if is_last else None, counts))
        if index == 0 and self._parts.is_chat:
            data = answer.framed(self._parts.role(usage(self.prompt_tokens, 0) if answer.continuous else None)) + data
        answer.write(data, self.request_id, token, due_ns)
        coming = (point for point in (self.fails_at, self.output_tokens) if point > token)
        self._special = token + 1 if answer.continuous else min(coming, default=token)
        if is_last:
            answer.ended(self)
