"""The bytes of a request: a workload's prefix, the prompt's fragment, and what is the request's own.

Everything that can be made before the run is: sending joins a few byte strings, so a prompt of 50,000 tokens costs a
copy, not an encoding.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from inference_energy.acquire.load.exchange.request import PlannedRequest
from inference_energy.acquire.load.exchange.settings import WorkloadSettings
from inference_energy.errors import InputError

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
