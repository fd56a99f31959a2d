"""What is sent, and the record of what came back."""

from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Literal

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
