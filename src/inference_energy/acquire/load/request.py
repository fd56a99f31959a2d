"""What is sent, and the record of what came back."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class PlannedRequest:
    """One request of the schedule.

    Attributes:
        request_id: unique within the session.
        prompt_id: which prompt.
        prompt: a text or token ids.
        max_tokens: most tokens to generate.
        arrival_ns: offset from the phase's start; None in a closed loop.
    """

    request_id: int
    prompt_id: int
    prompt: str | list[int]
    max_tokens: int
    arrival_ns: int | None = None


@dataclass
class RequestRecord:
    """One row of requests.parquet; see `contracts.requests`."""

    request_id: int
    cell: str
    prompt_id: int
    endpoint: str
    scheduled_ns: int
    sent_ns: int | None = None
    first_token_ns: int | None = None
    last_token_ns: int | None = None
    end_ns: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    status: str = "aborted"
    error: str | None = None
    worker: int = 0
    turn: int = 0

    def as_row(self) -> dict[str, Any]:
        """The record as a row."""
        return asdict(self)
