"""Stretches of load, the sessions they are run in, and the idle time around them."""

from typing import Literal

from pydantic import Field

from inference_energy.config.load.arrivals import Arrival
from inference_energy.config.section import Section


class LoadPhase(Section):
    """A stretch of load: a workload arriving in some way for some time."""

    workload: str = Field(description="a key of `workloads`")
    arrival: Arrival = Field(description="arrival process")
    duration_s: float = Field(gt=0, description="how long requests are sent [s]")


class Window(LoadPhase):
    """A measured stretch of load."""

    kind: Literal["steady", "prefill", "decode"] = Field(
        "steady", description="steady: realistic load, tested for steadiness; prefill, decode: only for the fit"
    )


class Session(Section):
    """One life of a server: launch, loaded idle, warm-up, windows in order, stop."""

    server: str = Field(description="a key of `servers`")
    warmup: LoadPhase | None = Field(None, description="load before the first window; null leaves it out")
    windows: list[str] = Field(min_length=1, description="keys of `windows`, measured in this order")


class Idle(Section):
    """Idle baselines."""

    cold_s: float = Field(60, gt=0, description="before the server starts [s]")
    loaded_s: float = Field(30, gt=0, description="with the server up and no request [s]")
    post_s: float = Field(30, ge=0, description="after the server has gone, for the drift test [s]")
    settle_s: float = Field(3, ge=0, description="wait before the loaded and the post-run baseline [s]")
