"""The base of the bench's settings."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Settings that cannot be changed, know no further keys, and hold finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
