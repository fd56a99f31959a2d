"""A request of the engine with somebody to answer."""

from inference_energy.bench.truth.request import Request


class Job(Request):
    """A request in a live server.

    Attributes:
        name: its id in answers.
        delivered: tokens handed over so far.
        most_tokens: the most it asked for.
        reason: why it ends when it has all its tokens.
        outcome: why it ended; None before.
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
