"""A request as the engine sees it."""

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Request:
    """What is asked, and what the engine has made of it so far.

    Attributes:
        request_id: any number; the bench's own.
        prompt_tokens: length of the prompt.
        output_tokens: how many tokens will be generated, which only the model knows beforehand.
        block_hashes: one value for each full block of the prompt, equal only where all tokens up to it are equal;
            empty where nothing may be reused.
        arrival_ns: when the server got it.
        cached_tokens: prompt tokens taken from the prefix cache at its first admission.
        generated: tokens generated up to its last event; while it decodes, ask `Engine.generated`.
        first_token_ns, last_token_ns: ends of the steps that made them; 0 before.
        chunks: prefill done for it: (step, tokens, pairs of token and earlier token).
        decodes: stretches of decoding that have ended: (first step, context in that step, steps).
        prefills: prefills that were completed for it, each of which sampled a token.
        preemptions: how often it lost its blocks.
    """

    request_id: int
    prompt_tokens: int
    output_tokens: int
    block_hashes: tuple[int, ...] = ()
    arrival_ns: int = 0
    cached_tokens: int = 0
    generated: int = 0
    first_token_ns: int = 0
    last_token_ns: int = 0
    preemptions: int = 0
    prefills: int = 0
    chunks: list[tuple[int, int, float]] = field(default_factory=list)
    decodes: list[tuple[int, int, int]] = field(default_factory=list)
    # The engine's own: tokens computed, tokens to compute before it decodes, the step after which it decoded, its last.
    computed: int = 0
    target: int = 0
    joined_step: int = -1
    finish_step: int = -1

    @property
    def finished(self) -> bool:
        """Whether all its tokens are there."""
        return self.generated >= self.output_tokens
