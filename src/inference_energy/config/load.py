"""What is asked and when: workloads, arrival processes, windows and sessions."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from inference_energy.config.section import Section


class NormalLength(Section):
    """Token counts from a normal distribution, rounded and clipped."""

    distribution: Literal["normal"]
    mean: float = Field(gt=0, description="mean [tokens]")
    std: float = Field(ge=0, description="standard deviation [tokens]")
    minimum: int = Field(1, ge=1, description="smallest [tokens]")
    maximum: int = Field(8192, ge=1, description="largest [tokens]")

    @model_validator(mode="after")
    def _ordered(self) -> "NormalLength":
        if not self.minimum <= self.mean <= self.maximum:
            raise ValueError(
                f"mean ({self.mean}) must lie between minimum ({self.minimum}) and maximum ({self.maximum})"
            )
        return self


class FixedLength(Section):
    """The same token count for all."""

    distribution: Literal["fixed"]
    tokens: int = Field(ge=1, description="length [tokens]")


Length = Annotated[NormalLength | FixedLength, Field(discriminator="distribution")]


class SyntheticPrompts(Section):
    """Random prompts of given length: token ids, or words where the vocabulary is not known."""

    source: Literal["synthetic"]
    length: Length = Field(description="prompt length")
    form: Literal["token_ids", "words"] = Field(
        "token_ids", description="token_ids: exact lengths; words: about one token a word, for any endpoint"
    )


class FilePrompts(Section):
    """Your own prompts: a text file, one prompt a line, drawn in random order."""

    source: Literal["file"]
    path: str = Field(min_length=1, description="the file, UTF-8, one prompt a line; empty lines are left out")


Prompts = Annotated[SyntheticPrompts | FilePrompts, Field(discriminator="source")]


class Workload(Section):
    """What a request asks."""

    prompts: Prompts = Field(description="where prompts come from")
    max_tokens: int = Field(256, ge=1, description="most tokens generated for a request")
    ignore_eos: bool = Field(False, description="generate exactly max_tokens")
    prefix_reuse: bool = Field(
        False, description="let the server reuse the cached prefix of a prompt sent before; false sends a cache salt"
    )


class PoissonArrival(Section):
    """Independent arrivals at a mean rate."""

    process: Literal["poisson"]
    rate_qps: float = Field(gt=0, description="mean rate [requests/s]")


class ConstantArrival(Section):
    """Evenly spaced arrivals."""

    process: Literal["constant"]
    rate_qps: float = Field(gt=0, description="rate [requests/s]")


class ClosedArrival(Section):
    """A fixed number of users, each sending the next request when the last has ended."""

    process: Literal["closed"]
    concurrency: int = Field(ge=1, description="number of users")
    pool: int = Field(256, ge=1, description="prompts made for it; when used up they are sent again")


Arrival = Annotated[PoissonArrival | ConstantArrival | ClosedArrival, Field(discriminator="process")]


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


class Client(Section):
    """The load client."""

    request_timeout_s: float = Field(300, gt=0, description="a request that takes longer has failed [s]")
    drain_s: float = Field(60, ge=0, description="after a window, wait this long for requests in flight [s]")


class Idle(Section):
    """Idle baselines."""

    cold_s: float = Field(60, gt=0, description="before the server starts [s]")
    loaded_s: float = Field(30, gt=0, description="with the server up and no request [s]")
    post_s: float = Field(30, ge=0, description="after the server has gone, for the drift test [s]")
    settle_s: float = Field(3, ge=0, description="wait before the loaded and the post-run baseline [s]")
