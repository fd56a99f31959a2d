"""Distributions of times, such as how long a user thinks."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from inference_energy.config.load.lengths import check_order
from inference_energy.config.section import Section


class FixedTime(Section):
    """The same time for all."""

    distribution: Literal["fixed"]
    time_s: float = Field(ge=0, le=86400, description="time [s]")


class ExponentialTime(Section):
    """Times without memory."""

    distribution: Literal["exponential"]
    mean_s: float = Field(gt=0, le=86400, description="mean [s]")


class LognormalTime(Section):
    """Times whose logarithm is normal, as those of people mostly are."""

    distribution: Literal["lognormal"]
    mean_s: float = Field(gt=0, le=86400, description="mean of the times [s]")
    std_s: float = Field(gt=0, description="standard deviation of the times [s]")


class UniformTime(Section):
    """Each time between two bounds equally likely."""

    distribution: Literal["uniform"]
    minimum_s: float = Field(ge=0, description="smallest [s]")
    maximum_s: float = Field(ge=0, le=86400, description="largest [s]")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_order(self.minimum_s, None, self.maximum_s)
        return self


Time = Annotated[FixedTime | ExponentialTime | LognormalTime | UniformTime, Field(discriminator="distribution")]

NO_TIME = FixedTime(distribution="fixed", time_s=0)
