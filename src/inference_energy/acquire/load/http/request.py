"""One request: its plan, the bytes of its body, and the observer that follows it.

A body is a workload's prefix, the prompt's fragment, and the request's own fields. Everything that can be encoded
before the run is: sending joins a few byte strings, so a prompt of 50,000 tokens costs a copy, not an encoding.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from inference_energy.contracts.load_client import Api, ClientSettings, WorkloadSettings
from inference_energy.contracts.requests import RequestRecord
from inference_energy.errors import InputError

__all__ = [
    "BodyMaker",
    "ClientSettings",
    "PlannedRequest",
    "RequestObserver",
    "RequestRecord",
    "WorkloadSettings",
    "assistant_message",
    "prompt_fragment",
]


@dataclass(slots=True)
class PlannedRequest:
    """One request of the schedule.

    Attributes:
        request_id: unique within the session.
        cell: the phase it belongs to.
        prompt_id: which prompt.
        prompt: JSON: the value of `prompt`, or with chat the messages without the brackets around them.
        max_tokens: most tokens to generate.
        arrival_ns: offset from the cell's start; None: closed loop, or a later turn.
        user: which user of a closed loop sends it.
        conversation: which conversation it belongs to.
        turn: its place there, from 0.
        think_ns: wait after the end of the previous request of the same user or conversation.
        salt: send a cache salt, so that the server does not reuse the prefix of an earlier prompt.
    """

    request_id: int
    cell: str
    prompt_id: int
    prompt: bytes
    max_tokens: int
    arrival_ns: int | None = None
    user: int | None = None
    conversation: int | None = None
    turn: int | None = None
    think_ns: int | None = None
    salt: bool = False


class RequestObserver(Protocol):
    """Follows requests, as the log of a load process does. Called in the timed path: be short, do not raise."""

    def sent(self, record: RequestRecord) -> None:
        """The request is about to be sent for the first time: `sent_ns` is set."""

    def first_token(self, record: RequestRecord) -> None:
        """The first token has come: `first_token_ns` is set. Never for an answer that is not streamed."""

    def chunk(self, record: RequestRecord, timestamp_ns: int, events: int, completion_tokens: int | None) -> None:
        """Events with content have come; only with `WorkloadSettings.chunk_times`.

        Args:
            record: the request.
            timestamp_ns: when the events came.
            events: number of complete events.
            completion_tokens: tokens so far, if the server states them in its events.
        """

    def ended(self, record: RequestRecord, text: str | None) -> None:
        """The request has ended in some way; `text` is the answer's, where it was to be kept."""


PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}

RESERVED = ("model", "prompt", "messages", "max_tokens", "stream", "ignore_eos", "cache_salt")
"""Fields that have settings of their own, or that the client must decide."""

_encode = msgspec.json.Encoder().encode


class BodyMaker:
    """The encoder of one client's request bodies.

    Args:
        model: its name at the server.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        # Another run may have used the same request ids at the same server.
        self._salt = secrets.token_hex(8)
        self._frames: dict[WorkloadSettings, tuple[bytes, bytes, bytes]] = {}

    def body(self, request: PlannedRequest, workload: WorkloadSettings, history: bytes = b"") -> bytes:
        """Return the body of a request; `history` holds the messages before it, without the brackets.

        Raises:
            InputError: `parameters` holds a reserved field.
        """
        opening, closing, end = self._frames.get(workload) or self._frame(workload)
        parts = [opening]
        if history:
            parts += history, b","
        parts += request.prompt, closing, b"%d" % request.max_tokens, end
        if request.salt:
            parts.append(b',"cache_salt":"%b-%d"' % (self._salt.encode(), request.request_id))
        parts.append(b"}")
        return b"".join(parts)

    def _frame(self, workload: WorkloadSettings) -> tuple[bytes, bytes, bytes]:
        """Return the bytes before the prompt, from the prompt to the value of `max_tokens`, and after that value."""
        fields = common_fields(self._model, workload)
        opening = _encode(fields)[:-1] + (b',"prompt":' if workload.api == "completions" else b',"messages":[')
        closing = (b"" if workload.api == "completions" else b"]") + b',"max_tokens":'
        # An extension of vLLM is sent only where it is needed: other servers may refuse it.
        frame = opening, closing, b',"ignore_eos":true' if workload.ignore_eos else b""
        self._frames[workload] = frame
        return frame


def common_fields(model: str, workload: WorkloadSettings) -> dict[str, Any]:
    """Return the fields that all requests of a workload share.

    Raises:
        InputError: `parameters` holds a reserved field.
    """
    for name in RESERVED:
        if name in workload.parameters:
            raise InputError(f"parameters.{name}: the load client sets this field itself; leave it out")
    fields: dict[str, Any] = {"model": model, "temperature": 0.0, "stream": workload.stream}
    if workload.stream:
        fields["stream_options"] = {"include_usage": True}
    for name, value in workload.parameters.items():
        if value is None:
            fields.pop(name, None)
        elif name == "stream_options" and isinstance(value, Mapping):
            fields[name] = {**value, "include_usage": True}
        else:
            fields[name] = value
    return fields


def prompt_fragment(
    api: Api,
    *,
    token_ids: Sequence[int] | None = None,
    text: str | None = None,
    messages: Sequence[Mapping[str, Any]] | None = None,
) -> bytes:
    """Encode a prompt as `PlannedRequest.prompt` holds it; exactly one form must be given.

    Raises:
        InputError: the form does not fit the API.
    """
    if api == "completions":
        if messages is not None:
            raise InputError("api: messages can only be sent to `chat`")
        return _encode(list(token_ids) if token_ids is not None else text)
    if token_ids is not None:
        raise InputError("api: token ids can only be sent to `completions`")
    return _encode(list(messages) if messages is not None else [{"role": "user", "content": text}])[1:-1]


def assistant_message(text: str) -> bytes:
    """Encode an answer as a message of the history."""
    return _encode({"role": "assistant", "content": text})
