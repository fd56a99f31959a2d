"""Distributions of lengths in tokens, and of how many turns a conversation has."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from inference_energy.config.section import Section


class NormalLength(Section):
    """Token counts from a normal distribution, rounded and clipped."""

    distribution: Literal["normal"]
    mean: float = Field(256, gt=0, description="mean [tokens]")
    std: float = Field(64, ge=0, description="standard deviation [tokens]")
    minimum: int = Field(1, ge=1, description="smallest [tokens]")
    maximum: int = Field(8192, ge=1, description="largest [tokens]")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_order(self.minimum, self.mean, self.maximum)
        return self


class LognormalLength(Section):
    """Token counts whose logarithm is normal: many short, few long; rounded and clipped."""

    distribution: Literal["lognormal"]
    mean: float = Field(gt=0, description="mean of the lengths, before they are clipped [tokens]")
    std: float = Field(gt=0, description="standard deviation of the lengths, before they are clipped [tokens]")
    minimum: int = Field(1, ge=1, description="smallest [tokens]")
    maximum: int = Field(8192, ge=1, description="largest [tokens]")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_order(self.minimum, self.mean, self.maximum)
        return self


class UniformLength(Section):
    """Each token count from the smallest to the largest equally often."""

    distribution: Literal["uniform"]
    minimum: int = Field(ge=1, description="smallest [tokens]")
    maximum: int = Field(ge=1, description="largest [tokens]")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_order(self.minimum, None, self.maximum)
        return self


class FixedLength(Section):
    """The same token count for all."""

    distribution: Literal["fixed"]
    tokens: int = Field(ge=1, description="length [tokens]")


class EmpiricalLength(Section):
    """Token counts drawn from those in a file, each as often as it stands there."""

    distribution: Literal["empirical"]
    path: str = Field(min_length=1, description="text file with one length a line, or a CSV with a head line")
    column: str | None = Field(None, description="column of a CSV; null: the file holds nothing but lengths")


Length = Annotated[
    NormalLength | LognormalLength | UniformLength | FixedLength | EmpiricalLength, Field(discriminator="distribution")
]


class FixedTurns(Section):
    """The same number of turns for all."""

    distribution: Literal["fixed"]
    turns: int = Field(ge=1, description="turns of a conversation")


class UniformTurns(Section):
    """Each number of turns from the smallest to the largest equally often."""

    distribution: Literal["uniform"]
    minimum: int = Field(ge=1, description="smallest")
    maximum: int = Field(ge=1, description="largest")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_order(self.minimum, None, self.maximum)
        return self


class GeometricTurns(Section):
    """After every turn the conversation ends with the same probability, 1/mean."""

    distribution: Literal["geometric"]
    mean: float = Field(ge=1, description="mean number of turns, before it is clipped")
    maximum: int = Field(64, ge=1, description="largest")


Turns = Annotated[FixedTurns | UniformTurns | GeometricTurns, Field(discriminator="distribution")]


def check_order(minimum: float, mean: float | None, maximum: float) -> None:
    """Refuse bounds that do not hold the mean, or each other.

    Raises:
        ValueError: with the keys and their values.
    """
    if mean is not None and not minimum <= mean <= maximum:
        raise ValueError(f"mean ({mean:g}) must lie between minimum ({minimum:g}) and maximum ({maximum:g})")
    if minimum > maximum:
        raise ValueError(f"minimum ({minimum:g}) must not be above maximum ({maximum:g})")
