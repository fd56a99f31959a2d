"""What a request asks."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from inference_energy.config.load.lengths import FixedTurns, Length, Turns
from inference_energy.config.load.prompts import FilePrompts, Prompts, QuestionPrompts, SyntheticPrompts
from inference_energy.config.load.times import NO_TIME, Time
from inference_energy.config.section import Section

MAX_TOKENS = 256

OURS = {
    "model": "the server's own key",
    "prompt": "prompts",
    "messages": "prompts",
    "stream": "stream",
    "stream_options": "stream",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "ignore_eos": "ignore_eos",
    "cache_salt": "prefix_reuse",
    "n": "nothing: a request has one answer, or its tokens could not be told apart",
    "best_of": "nothing: a request has one answer, or its tokens could not be told apart",
    "echo": "nothing: the prompt in the answer would be taken for its first token",
}
"""Fields of a request's body that are not free, and what to write instead."""


class Conversations(Section):
    """Chats of several turns: each user message follows the answer to the one before."""

    turns: Turns = Field(
        FixedTurns(distribution="fixed", turns=4),
        description="how many turns a conversation has, by default 4; of recorded ones no more than they have",
    )
    think: Time = Field(NO_TIME, description="wait between an answer and the next message; by default none")


class Workload(Section):
    """What a request asks."""

    prompts: Prompts = Field(description="where prompts come from")
    conversations: Conversations | None = Field(None, description="chats of several turns; null: single requests")
    max_tokens: int = Field(MAX_TOKENS, ge=1, description="most tokens generated for a request")
    output_length: Length | None = Field(
        None, description="exact answer lengths, drawn for each request, in place of max_tokens; needs ignore_eos: true"
    )
    ignore_eos: bool = Field(
        False, description="generate exactly max_tokens, or what output_length draws; false: an answer may end earlier"
    )
    api: Literal["completions", "chat"] = Field(
        "completions", description="completions: /v1/completions; chat: /v1/chat/completions, a prompt as user message"
    )
    stream: bool = Field(True, description="have tokens sent as they come; false: no time of a first token")
    prefix_reuse: bool = Field(
        False, description="let the server reuse the cached prefix of a prompt sent before; false sends a cache salt"
    )
    history: Literal["actual", "planned"] = Field(
        "actual",
        description="what a conversation's later turns begin with. actual: the server's own answers; planned: those of "
        "the recorded conversation, or random words: every run asks the same",
    )
    keep_answers: bool = Field(False, description="keep the text of every answer in answers.parquet")
    chunk_times: bool = Field(False, description="keep the time of every arrival of an answer in chunks.parquet")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="further fields of a request, such as temperature or top_p"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = [*self._lengths(), *self._conversations(), *self._parameters()]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _lengths(self) -> list[str]:
        if self.output_length is None:
            return []
        problems = []
        if not self.ignore_eos:
            problems.append(
                "output_length: a model may end its answers earlier, and then they are not so distributed; "
                "write ignore_eos: true, or max_tokens in its place"
            )
        if self.max_tokens != MAX_TOKENS:
            problems.append("max_tokens: output_length takes its place; leave one of the two out")
        return problems

    def _conversations(self) -> list[str]:
        as_ids = isinstance(self.prompts, SyntheticPrompts) and self.prompts.form == "token_ids"
        if self.conversations is None:
            if as_ids and self.api == "chat":
                return ["api: chat takes no token ids; write prompts.form: words, or api: completions"]
            return []
        problems = []
        if self.api != "chat":
            problems.append("conversations: they need messages; write api: chat")
        if as_ids:
            problems.append("conversations: messages are texts; write prompts.form: words")
        if isinstance(self.prompts, FilePrompts):
            problems.append(
                "conversations: a text file holds single prompts; write prompts.source: jsonl, sharegpt or synthetic"
            )
        if isinstance(self.prompts, QuestionPrompts):
            problems.append("conversations: each question stands alone; leave conversations out")
        return problems

    def _parameters(self) -> list[str]:
        return [
            f"parameters.{name}: this field is set from other keys; use {OURS[name]}"
            for name in self.parameters
            if name in OURS
        ]
