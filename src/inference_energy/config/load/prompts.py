"""Prompts: where they come from, how long they are, and how many turns a conversation has."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from inference_energy.config.base import Section

MOST_TOKENS = 10_000_000
"""Longest prompt or answer: no model has a longer context, so a greater number is not one of tokens."""
MOST_TURNS = 10_000


def check_order(minimum: float, mean: float | None, maximum: float) -> None:
    """Refuse bounds that do not hold the mean, or each other.

    Raises:
        ValueError: with the keys and their values.
    """
    if mean is not None and not minimum <= mean <= maximum:
        raise ValueError(f"mean ({mean:g}) must lie between minimum ({minimum:g}) and maximum ({maximum:g})")
    if minimum > maximum:
        raise ValueError(f"minimum ({minimum:g}) must not be above maximum ({maximum:g})")


class _Bounded(Section):
    """A distribution with a `minimum`, a `maximum` and perhaps a `mean` between them."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        bounds = dict(self)
        check_order(bounds["minimum"], bounds.get("mean"), bounds["maximum"])
        return self


class NormalLength(_Bounded):
    """Token counts from a normal distribution, rounded and clipped."""

    distribution: Literal["normal"]
    mean: float = Field(256, gt=0, le=MOST_TOKENS, description="mean [tokens]")
    std: float = Field(64, ge=0, le=MOST_TOKENS, description="standard deviation [tokens]")
    minimum: int = Field(1, ge=1, le=MOST_TOKENS, description="smallest [tokens]")
    maximum: int = Field(8192, ge=1, le=MOST_TOKENS, description="largest [tokens]")


class LognormalLength(_Bounded):
    """Token counts whose logarithm is normal: many short, few long; rounded and clipped."""

    distribution: Literal["lognormal"]
    mean: float = Field(gt=0, le=MOST_TOKENS, description="mean of the lengths, before they are clipped [tokens]")
    std: float = Field(
        gt=0, le=MOST_TOKENS, description="standard deviation of the lengths, before they are clipped [tokens]"
    )
    minimum: int = Field(1, ge=1, le=MOST_TOKENS, description="smallest [tokens]")
    maximum: int = Field(8192, ge=1, le=MOST_TOKENS, description="largest [tokens]")


class UniformLength(_Bounded):
    """Each token count from the smallest to the largest equally often."""

    distribution: Literal["uniform"]
    minimum: int = Field(ge=1, le=MOST_TOKENS, description="smallest [tokens]")
    maximum: int = Field(ge=1, le=MOST_TOKENS, description="largest [tokens]")


class FixedLength(Section):
    """The same token count for all."""

    distribution: Literal["fixed"]
    tokens: int = Field(ge=1, le=MOST_TOKENS, description="length [tokens]")


class EmpiricalLength(Section):
    """Token counts drawn from those in a file, each as often as it stands there."""

    distribution: Literal["empirical"]
    path: str = Field(min_length=1, description="text file with one length a line, or a CSV with a head line")
    column: str | None = Field(None, description="column of a CSV; null: the file holds nothing but lengths")


Length = Annotated[
    NormalLength | LognormalLength | UniformLength | FixedLength | EmpiricalLength, Field(discriminator="distribution")
]


def mean_tokens(length: Length) -> float:
    """Return about how many tokens a distribution gives; of a file 500, since the configuration does not say."""
    if isinstance(length, FixedLength):
        return length.tokens
    if isinstance(length, UniformLength):
        return (length.minimum + length.maximum) / 2
    return 500 if isinstance(length, EmpiricalLength) else length.mean


class FixedTurns(Section):
    """The same number of turns for all."""

    distribution: Literal["fixed"]
    turns: int = Field(ge=1, le=MOST_TURNS, description="turns of a conversation")


class UniformTurns(_Bounded):
    """Each number of turns from the smallest to the largest equally often."""

    distribution: Literal["uniform"]
    minimum: int = Field(ge=1, le=MOST_TURNS, description="smallest")
    maximum: int = Field(ge=1, le=MOST_TURNS, description="largest")


class GeometricTurns(Section):
    """After every turn the conversation ends with the same probability, 1/mean."""

    distribution: Literal["geometric"]
    mean: float = Field(ge=1, le=MOST_TURNS, description="mean number of turns, before it is clipped")
    maximum: int = Field(64, ge=1, le=MOST_TURNS, description="largest")


Turns = Annotated[FixedTurns | UniformTurns | GeometricTurns, Field(discriminator="distribution")]


MOST_PREFIX_TOKENS = 100_000_000


class SharedPrefix(Section):
    """Prompts that begin alike, as those with a common system prompt do."""

    groups: int = Field(
        ge=1, le=1_000_000, description="how many different beginnings there are; each is drawn equally often"
    )
    tokens: int = Field(
        ge=1, le=MOST_TOKENS, description="length of a beginning, which comes before the prompt's own [tokens]"
    )
    share: float = Field(1.0, gt=0, le=1, description="share of the prompts that have one")

    @model_validator(mode="after")
    def _fits_into_memory(self) -> Self:
        if self.groups * self.tokens > MOST_PREFIX_TOKENS:
            raise ValueError(
                f"groups ({self.groups}) times tokens ({self.tokens}) is more than {MOST_PREFIX_TOKENS}, which would "
                "not fit into memory"
            )
        return self


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
    """Your own prompts: a JSON object a line, with `prompt`, `token_ids` or `messages`; see docs/reference/load.md."""

    source: Literal["jsonl"]
    path: str = Field(
        min_length=1, description="the file, UTF-8; a line may also have an `answer` (a graded prompt) and `max_tokens`"
    )
    order: Order = Field("random", description=ORDER)


class ShareGptPrompts(Section):
    """Recorded conversations in the ShareGPT form; without `conversations` their first user message only."""

    source: Literal["sharegpt"]
    path: str = Field(min_length=1, description="the file, a JSON list or JSONL: objects with `conversations`")
    order: Order = Field("random", description=ORDER)


class QuestionPrompts(Section):
    """Questions with right answers, shipped with the toolkit (energy per correct answer: docs/reference/metrics.md)."""

    source: Literal["questions"]
    order: Order = Field("random", description=ORDER)


PromptsConfig = Annotated[
    SyntheticPrompts | FilePrompts | JsonlPrompts | ShareGptPrompts | QuestionPrompts,
    Field(discriminator="source"),
]
