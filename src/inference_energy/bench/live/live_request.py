"""Requests of the live server, and the interface to the record of what becomes of them."""

from collections.abc import Mapping
from typing import Any

from inference_energy.bench.truth.ledger import BenchRequest


class LiveRequest(BenchRequest):
    """A request of the live server, and how far it has been answered.

    Attributes:
        name: its id in answers.
        delivered: number of tokens handed over.
        most_tokens: limit that it asked for.
        reason: finish reason once it has all its tokens.
        outcome: why it ended; None while it is under way.
    """

    __slots__ = ("delivered", "most_tokens", "name", "outcome", "reason")

    def __init__(
        self,
        request_id: int,
        name: str,
        prompt_tokens: int,
        output_tokens: int,
        *,
        block_hashes: tuple[int, ...] = (),
        most_tokens: int,
        reason: str,
    ) -> None:
        super().__init__(request_id, prompt_tokens, output_tokens, block_hashes)
        self.name = name
        self.delivered = 0
        self.most_tokens = most_tokens
        self.reason = reason
        self.outcome: str | None = None

    def deliver(self, due_ns: int) -> None:
        """Hand over the next token, which was there at `due_ns`. Called in the step loop: it must be quick."""
        self.delivered += 1


class TruthSink:
    """Record that keeps nothing; `truth_writer.TruthWriter` writes one."""

    def start(self) -> None:
        """Begin to write, in the running event loop."""

    def flush(self) -> None:
        """Write what is new."""

    def sent(self, request_id: int, token: int, due_ns: int, sent_ns: int) -> None:
        """Note that the `token`-th token of a request, counted from 1, due at `due_ns`, was written at `sent_ns`."""

    def ended(self, request: LiveRequest) -> None:
        """Note that a request left the engine, with its outcome set."""

    def close(self, further: Mapping[str, Any]) -> None:
        """Write the rest."""
