"""Who is told of a request's progress."""

from typing import Protocol

from inference_energy.acquire.load.exchange.request import RequestRecord


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
