"""How requests are sent, and what they ask besides their prompt.

How requests are sent, and what they ask besides their prompt.

What is sent, and the record of what came back.

Who is told of a request's progress.

The bytes of a request: a workload's prefix, the prompt's fragment, and what is the request's own.

Everything that can be made before the run is: sending joins a few byte strings, so a prompt of 50,000 tokens costs a
copy, not an encoding.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from inference_energy.errors import InputError

KEEP_ALIVE_S = 4.0
"""Uvicorn closes idle connections after 5 s; one reused later would fail."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Settings of the client; times in s.

    Attributes:
        request_timeout_s: a request that takes longer has failed.
        connect_timeout_s: so has one whose connection takes longer.
        transport: `auto` is plain, also for https://: it costs less and is later by less; see docs/validation/load.md.
        api_key: sent as a bearer token; never shown.
        ca_file: certificates to trust instead of the system's.
        verify: whether the server's certificate is checked.
        connections: most connections to an endpoint; None: no limit.
        keep_alive_s: an idle connection is reused for at most so long.
    """

    request_timeout_s: float = 300.0
    connect_timeout_s: float = 30.0
    transport: Literal["auto", "plain", "aiohttp"] = "auto"
    api_key: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    verify: bool = True
    connections: int | None = None
    keep_alive_s: float = KEEP_ALIVE_S


@dataclass(frozen=True, slots=True, eq=False)
class WorkloadSettings:
    """What a workload's requests have in common.

    Attributes:
        api: `completions` asks /v1/completions with `prompt`, `chat` /v1/chat/completions with `messages`.
        stream: whether tokens are sent as they come.
        ignore_eos: generate exactly as many tokens as asked for.
        history: `actual`: later turns need the text of the answers before them, so answers of conversations are kept.
        keep_answers: keep the text of every answer.
        chunk_times: tell the observer of every arrival.
        parameters: further fields of the body. A null leaves out what the client would send (`temperature`).
    """

    api: Literal["completions", "chat"] = "completions"
    stream: bool = True
    ignore_eos: bool = False
    history: Literal["actual", "planned"] = "actual"
    keep_answers: bool = False
    chunk_times: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)


Status = Literal["ok", "failed", "aborted", "skipped"]


@dataclass(slots=True)
class PlannedRequest:
    """One request of the schedule.

    Attributes:
        request_id: unique within the session.
        cell: the phase it belongs to.
        prompt_id: which prompt.
        prompt: JSON: the value of `prompt`, or with chat what stands in `messages` between the brackets.
        max_tokens: most tokens to generate.
        arrival_ns: offset from the cell's start; None: closed loop, or a later turn.
        user: which user of a closed loop sends it.
        conversation: which conversation it belongs to.
        turn: its place there, from 0.
        think_ns: wait after the end of the previous request of the same user or conversation.
        salt: send a cache salt, so that the server computes the prompt anew.
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


@dataclass(slots=True)
class RequestRecord:
    """One row of requests.parquet; see `contracts.requests`. Times are monotonic ns, token counts the server's.

    Attributes:
        sent_ns: when the client turned to the network with the attempt that counts: on an open connection the bytes
            are written at once, otherwise once it is connected. Waiting for a free connection, where their number is
            limited, comes before it.
        end_ns: when the answer was complete, had failed, or was cut off.
        attempts: 2 if the server had closed a reused connection before a byte of the answer came, 0 if none began.
    """

    request_id: int
    cell: str
    worker: int
    endpoint: str
    prompt_id: int
    turn: int | None
    scheduled_ns: int
    sent_ns: int | None = None
    first_token_ns: int | None = None
    last_token_ns: int | None = None
    end_ns: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    status: Status = "aborted"
    error: str | None = None
    conversation: int | None = None
    user: int | None = None
    attempts: int = 0
    status_code: int | None = None

    def as_tuple(self) -> tuple[Any, ...]:
        """The values in the order of `COLUMNS`."""
        values: tuple[Any, ...] = _values(self)
        return values


COLUMNS = tuple(field.name for field in fields(RequestRecord))
"""Names of the record's values, in their order."""

_values = attrgetter(*COLUMNS)


class Observer(Protocol):
    """Told of each request as it goes. Called in the timed path: be short, do not raise."""

    def sent(self, record: RequestRecord) -> None:
        """The request is about to be sent, for the first time: `sent_ns` is set."""

    def first_token(self, record: RequestRecord) -> None:
        """The first token has come: `first_token_ns` is set. Never for an answer that is not streamed."""

    def chunk(self, record: RequestRecord, timestamp_ns: int, events: int, completion_tokens: int | None) -> None:
        """Events with content have come; only with `WorkloadSettings.chunk_times`.

        Args:
            record: the request.
            timestamp_ns: when they came.
            events: how many were complete.
            completion_tokens: tokens so far, if the server says it in its events.
        """

    def ended(self, record: RequestRecord, text: str | None) -> None:
        """The request has ended in whatever way; `text` is the answer's, where it was to be kept."""


PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}

RESERVED = ("model", "prompt", "messages", "max_tokens", "stream", "ignore_eos", "cache_salt")
"""Fields that have settings of their own, or that the client must decide."""

_encode = msgspec.json.Encoder().encode


class BodyMaker:
    """Makes the bodies of one client's requests.

    Args:
        model: its name at the server.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        # Another run may have used the same request ids at the same server.
        self._salt = secrets.token_hex(8)
        self._frames: dict[WorkloadSettings, tuple[bytes, bytes, bytes]] = {}

    def body(self, request: PlannedRequest, workload: WorkloadSettings, history: bytes = b"") -> bytes:
        """The body of a request; `history` is the inside of `messages` up to it.

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
        """What stands before the prompt, between it and `max_tokens`' value, and after that."""
        fields = common_fields(self._model, workload)
        opening = _encode(fields)[:-1] + (b',"prompt":' if workload.api == "completions" else b',"messages":[')
        closing = (b"" if workload.api == "completions" else b"]") + b',"max_tokens":'
        # An extension of vLLM is sent only where it is needed: other servers may refuse it.
        frame = opening, closing, b',"ignore_eos":true' if workload.ignore_eos else b""
        self._frames[workload] = frame
        return frame


def common_fields(model: str, workload: WorkloadSettings) -> dict[str, Any]:
    """The fields that all requests of a workload share.

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
    api: Literal["completions", "chat"],
    *,
    token_ids: Sequence[int] | None = None,
    text: str | None = None,
    messages: Sequence[Mapping[str, Any]] | None = None,
) -> bytes:
    """The JSON of a prompt as `PlannedRequest.prompt` has it; exactly one form is given.

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
    """An answer as a message of the history."""
    return _encode({"role": "assistant", "content": text})
