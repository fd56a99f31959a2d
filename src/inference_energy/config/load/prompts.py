"""Where prompts come from."""

from typing import Annotated, Literal

from pydantic import Field

from inference_energy.config.load.lengths import Length, NormalLength
from inference_energy.config.section import Section


class SharedPrefix(Section):
    """Prompts that begin alike, as those with a common system prompt do."""

    groups: int = Field(ge=1, description="how many different beginnings there are; each is drawn equally often")
    tokens: int = Field(ge=1, description="length of a beginning, which comes before the prompt's own [tokens]")
    share: float = Field(1.0, gt=0, le=1, description="share of the prompts that have one")


class SyntheticPrompts(Section):
    """Random prompts of given length: token ids, or words where the vocabulary is not known."""

    source: Literal["synthetic"]
    length: Length = Field(
        NormalLength(distribution="normal"),
        description="prompt length, by default normal; in a conversation that of each user message",
    )
    form: Literal["token_ids", "words"] = Field(
        "token_ids", description="token_ids: exact lengths; words: about one token a word, for any endpoint"
    )
    prefix: SharedPrefix | None = Field(None, description="beginnings shared by groups of prompts; null: none")


Order = Literal["random", "file"]
ORDER = "random: all are drawn before one is drawn again; file: in the order of the file, again and again"


class FilePrompts(Section):
    """Your own prompts: a text file, one prompt a line."""

    source: Literal["file"]
    path: str = Field(min_length=1, description="the file, UTF-8, one prompt a line; empty lines are left out")
    order: Order = Field("random", description=ORDER)


class JsonlPrompts(Section):
    """Your own prompts: a JSON object a line, with `prompt`, `token_ids` or `messages`; see docs/load.md."""

    source: Literal["jsonl"]
    path: str = Field(
        min_length=1, description="the file, UTF-8; a line may also have an `answer` (a graded prompt) and `max_tokens`"
    )
    order: Order = Field("random", description=ORDER)


class ShareGptPrompts(Section):
    """Recorded conversations in the ShareGPT form; without `conversations` their first user message only."""

    source: Literal["sharegpt"]
    path: str = Field(min_length=1, description="the JSON file: a list of objects with `conversations`")
    order: Order = Field("random", description=ORDER)


class QuestionPrompts(Section):
    """The toolkit's own questions, each with its right answer, for energy per correct answer; see docs/metrics.md."""

    source: Literal["questions"]
    order: Order = Field("random", description=ORDER)


Prompts = Annotated[
    SyntheticPrompts | FilePrompts | JsonlPrompts | ShareGptPrompts | QuestionPrompts,
    Field(discriminator="source"),
]
