"""The OpenAI interface with vLLM's extensions: request bodies, refusals, and faults that requests meet on demand."""

import asyncio
import os
import signal
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inference_energy.bench.config import ServerFaults

FaultKind = Literal["error 500", "crash", "disconnect", "error event", "stall"]
MESSAGE = "A simulated failure, as this node's faults ask for."

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Prompt = str | list[TokenId]
SHOWN_ERRORS = 10

Body = TypeVar("Body", bound=BaseModel)


class RefusedError(Exception):
    """Refusal of a request: the client gets an error instead of an answer.

    Attributes:
        content: the error as JSON, as vLLM writes it.
    """

    def __init__(self, status: int, message: str, param: str | None = None, kind: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.content = error_content(status, message, param, kind)


def error_content(status: int, message: str, param: str | None = None, kind: str | None = None) -> dict[str, Any]:
    """Return vLLM's error object; its type is `kind`, or the status' phrase without spaces and with `Error`."""
    phrase = HTTPStatus(status).phrase
    named = phrase.replace(" ", "").removesuffix("Error") + "Error"
    return {"error": {"message": message, "type": kind or named, "param": param, "code": status}}


class _Received(BaseModel):
    model_config = ConfigDict(extra="ignore")


class StreamOptions(_Received):
    """Usage that a stream reports."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Generation(_Received):
    """Fields that completions and chats share. Other sampling parameters are accepted and have no effect."""

    model: str | None = None
    max_tokens: int | None = None
    n: int | None = 1
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False
    min_tokens: int = Field(0, ge=0)
    stop: str | list[str] | None = None
    echo: bool | None = False
    cache_salt: str | None = None

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("Stream options can only be defined when `stream=True`.")
        return self

    @property
    def most_tokens(self) -> int | None:
        """Limit of generated tokens that it asks for."""
        return self.max_tokens


class CompletionBody(Generation):
    """POST /v1/completions."""

    prompt: list[TokenId] | list[list[TokenId]] | str | list[str]
    max_tokens: int | None = 16

    @property
    def prompts(self) -> list[Prompt]:
        """Each prompt as it was sent."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if not prompt or isinstance(prompt[0], int):
            return [[token for token in prompt if isinstance(token, int)]]
        return [part for part in prompt if not isinstance(part, int)]


class Message(_Received):
    """One message of a chat."""

    role: str
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """Its text; parts that are not text count for nothing."""
        if isinstance(self.content, list):
            return " ".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""


class Messages(_Received):
    """The part of a request that holds a chat."""

    messages: list[Message] = Field(min_length=1)

    @property
    def text(self) -> str:
        """The chat as one text, in place of a chat template."""
        return " ".join([f"{message.role} {message.text}" for message in self.messages] + ["assistant"])


class ChatBody(Messages, Generation):
    """POST /v1/chat/completions."""

    max_completion_tokens: int | None = None

    @property
    def most_tokens(self) -> int | None:
        """Limit of generated tokens that it asks for."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class TokenizeBody(_Received):
    """POST /tokenize of a text or a chat."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    return_token_strs: bool | None = False

    @model_validator(mode="after")
    def _text_or_chat(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("write either `prompt` or `messages`")
        return self

    @property
    def text(self) -> str:
        """The text to tokenize."""
        return self.prompt or "" if self.messages is None else Messages(messages=self.messages).text


class DetokenizeBody(_Received):
    """POST /detokenize."""

    model: str | None = None
    tokens: list[TokenId]


def parse(kind: type[Body], content: bytes) -> Body:
    """Parse a request's body.

    Raises:
        RefusedError: 400; the body is not JSON or does not fit.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        label = f"{len(faults)} validation error" + "s" * (len(faults) > 1)
        lines = [f"  {fault}" for fault in faults[:SHOWN_ERRORS]]
        key = ".".join(str(part) for part in faults[0]["loc"] if not str(part).startswith(("list", "constrained")))
        raise RefusedError(400, "\n".join([f"{label}:", *lines]), key or None, "Bad Request") from error


def checked_length(prompt_tokens: int, body: Generation, max_model_len: int) -> int:
    """Return the most tokens that a request may get, by vLLM's rules.

    Raises:
        RefusedError: 400; it asks for none, for more than fits, or for an option that the bench lacks.
    """
    if body.n not in (None, 1) or body.echo:
        raise RefusedError(400, "This simulated server gives one answer a prompt (n = 1), without echo.", "n")
    most = body.most_tokens
    if most is not None and most < 1:
        raise RefusedError(400, f"max_tokens must be at least 1, got {most}.", "max_tokens")
    if most is not None and most > max_model_len:
        raise RefusedError(
            400,
            f"max_tokens={most} cannot be greater than max_model_len={max_model_len}. "
            "Please request fewer output tokens.",
            "max_tokens",
        )
    if most is not None and body.min_tokens > most:
        raise RefusedError(
            400,
            f"min_tokens must be less than or equal to max_tokens={most}, got {body.min_tokens}.",
            "min_tokens",
        )
    if prompt_tokens < 1:
        raise RefusedError(400, "The decoder prompt cannot be empty", "prompt")
    room = max_model_len - prompt_tokens
    if room < (most or 1):
        raise RefusedError(
            400,
            f"This model's maximum context length is {max_model_len} tokens. However, you requested "
            f"{most or 1} output tokens and your prompt contains {prompt_tokens} input tokens. "
            "Please reduce the length of the input prompt or the number of requested output tokens.",
            "input_tokens",
        )
    return room if most is None else most


def crash() -> None:
    """End this process at once, as a crash does."""
    os.kill(os.getpid(), signal.SIGKILL)


class RequestFaults:
    """Faults of a server: which request meets which.

    Args:
        settings: the node's.
    """

    def __init__(self, settings: ServerFaults) -> None:
        self.settings = settings
        self._count = 0

    def next(self) -> FaultKind | None:
        """Return the fault of the next request; of several, the first in `FaultKind`."""
        self._count += 1
        number, faults = self._count, self.settings
        due: list[tuple[FaultKind, bool]] = [
            ("error 500", _is_nth(faults.error_500_every, number)),
            ("crash", faults.crash_at_request == number),
            ("disconnect", _is_nth(faults.disconnect_every, number)),
            ("error event", _is_nth(faults.error_event_every, number)),
            ("stall", _is_nth(faults.stall_every, number)),
        ]
        return next((kind for kind, is_due in due if is_due), None)

    def schedule(self, loop: asyncio.AbstractEventLoop, hang: Callable[[], None]) -> None:
        """Schedule the crash or hang that comes by itself; the server listens from now on."""
        if self.settings.crash_after_s is not None:
            loop.call_later(self.settings.crash_after_s, crash)
        if self.settings.hang_after_s is not None:
            loop.call_later(self.settings.hang_after_s, hang)


def _is_nth(every: int | None, number: int) -> bool:
    return every is not None and number % every == 0
