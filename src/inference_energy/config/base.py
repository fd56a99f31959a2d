"""The base of every configuration section: unknown keys are refused, every field has a description."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
