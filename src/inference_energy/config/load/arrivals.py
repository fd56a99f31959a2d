"""Times of requests: arrival processes, and distributions of the times between messages of a chat."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from inference_energy.config.base import MOST_SECONDS, Section
from inference_energy.config.load.prompts import check_order


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
    std_s: float = Field(gt=0, le=86400, description="standard deviation of the times [s]")

    @model_validator(mode="after")
    def _some_spread(self) -> Self:
        if self.std_s > 1000 * self.mean_s:
            raise ValueError(f"std_s ({self.std_s:g}) is more than 1000 times mean_s ({self.mean_s:g})")
        return self


class UniformTime(Section):
    """Each time between two bounds equally likely."""

    distribution: Literal["uniform"]
    minimum_s: float = Field(ge=0, le=86400, description="smallest [s]")
    maximum_s: float = Field(ge=0, le=86400, description="largest [s]")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_order(self.minimum_s, None, self.maximum_s)
        return self


Time = Annotated[FixedTime | ExponentialTime | LognormalTime | UniformTime, Field(discriminator="distribution")]

NO_TIME = FixedTime(distribution="fixed", time_s=0)


MOST_REQUESTS = 50_000_000
"""More requests in a window are taken for a mistake in the configuration."""

Kind = Literal["poisson", "gamma", "constant"]
KIND = "poisson: independent arrivals; gamma: as burstiness says; constant: evenly spaced where the rate is constant"
BURSTINESS = "shape of the gamma distribution of the gaps, as in vLLM: 1 is Poisson, below it arrivals come in bursts"


class PoissonArrival(Section):
    """Independent arrivals at a mean rate."""

    process: Literal["poisson"]
    rate_qps: float = Field(gt=0, description="mean rate [requests/s]")


class GammaArrival(Section):
    """Independent gaps from a gamma distribution: bursts, or more even than Poisson."""

    process: Literal["gamma"]
    rate_qps: float = Field(gt=0, description="mean rate [requests/s]")
    burstiness: float = Field(ge=0.01, le=10_000, description=BURSTINESS)


class ConstantArrival(Section):
    """Evenly spaced arrivals."""

    process: Literal["constant"]
    rate_qps: float = Field(gt=0, description="rate [requests/s]")


class ClosedArrival(Section):
    """A fixed number of users, each sending the next request when the last has ended."""

    process: Literal["closed"]
    concurrency: int = Field(ge=1, le=1_000_000, description="number of users")
    think: Time = Field(NO_TIME, description="wait between an answer and the same user's next request; by default none")
    stagger_s: float = Field(
        0, ge=0, le=MOST_SECONDS, description="users begin evenly over this time; 0: all at once [s]"
    )
    pool: int = Field(
        256,
        ge=1,
        le=MOST_REQUESTS,
        description="prompts, or conversations, made for it, but at least one a user; when used up they are sent again",
    )


class _Modulated(Section):
    """A process whose rate changes: the unit process, its time rescaled."""

    kind: Kind = Field("poisson", description=KIND)
    burstiness: float = Field(1.0, ge=0.01, le=10_000, description=f"with kind: gamma: {BURSTINESS}")

    @model_validator(mode="after")
    def _burstiness_has_a_meaning(self) -> Self:
        if self.kind != "gamma" and self.burstiness != 1.0:
            raise ValueError(f"burstiness: has no meaning with kind: {self.kind}; write kind: gamma, or leave it out")
        return self


class RampArrival(_Modulated):
    """A rate that changes linearly over the whole time."""

    process: Literal["ramp"]
    from_qps: float = Field(ge=0, description="rate at the start [requests/s]")
    to_qps: float = Field(ge=0, description="rate at the end [requests/s]")

    @model_validator(mode="after")
    def _some_rate(self) -> Self:
        if self.from_qps == self.to_qps == 0:
            raise ValueError("from_qps and to_qps are both 0: nothing would be sent")
        return self


class Step(Section):
    """A stretch of constant rate."""

    rate_qps: float = Field(ge=0, description="rate [requests/s]; 0 is a pause")
    duration_s: float = Field(gt=0, le=MOST_SECONDS, description="how long [s]")


class PiecewiseArrival(_Modulated):
    """Stretches of constant rate, one after another, and again from the first until the time is over."""

    process: Literal["piecewise"]
    steps: list[Step] = Field(min_length=1, description="the stretches: rate_qps and duration_s of each")

    @model_validator(mode="after")
    def _some_rate(self) -> Self:
        if not any(step.rate_qps for step in self.steps):
            raise ValueError("steps: every rate_qps is 0: nothing would be sent")
        return self


class DayArrival(_Modulated):
    """A rate that goes up and down like a sine, as between day and night."""

    process: Literal["day"]
    mean_qps: float = Field(gt=0, description="mean rate [requests/s]")
    amplitude: float = Field(ge=0, le=1, description="largest deviation from the mean, as a share of it")
    period_s: float = Field(86400, gt=0, le=MOST_SECONDS, description="length of a day [s]")
    phase: float = Field(
        0, ge=0, lt=1, description="share of the day that is over at the start: 0 rising, 0.25 highest, 0.75 lowest"
    )


TimeUnit = Literal["s", "ms", "us", "ns"]


class TraceArrival(Section):
    """Replay of a recorded trace: Azure LLM inference (2023, 2024), BurstGPT, Mooncake, or Qwen-Bailian."""

    process: Literal["trace"]
    format: Literal["azure", "burstgpt", "mooncake", "bailian"] = Field(
        description="azure: CSV with TIMESTAMP, ContextTokens, GeneratedTokens; burstgpt: CSV with Timestamp, Request "
        "tokens, Response tokens; mooncake, bailian: JSONL with timestamp, input_length, output_length, hash_ids"
    )
    path: str = Field(min_length=1, description="the file, as it was published")
    start_s: float = Field(0, ge=0, description="begin this long after the trace's first request [s of the trace]")
    time_scale: float = Field(1.0, gt=0, description="seconds here for a second of the trace; 0.5 doubles the rate")
    max_requests: int | None = Field(None, ge=1, description="at most so many requests; null: no limit")
    lengths: bool = Field(
        True, description="prompts and answers as long as in the trace; needs synthetic prompts and ignore_eos: true"
    )
    time_unit: TimeUnit | None = Field(
        None,
        description="unit of the file's times: s, ms, us or ns; null: as published, which is ms for mooncake, s for "
        "bailian and burstgpt, dates for azure",
    )
    block_tokens: int | None = Field(
        None, ge=1, le=1_000_000, description="tokens of a block of hash_ids; null: 512 for mooncake, 16 for bailian"
    )


class ScheduleArrival(Section):
    """Replay of a schedule: that of an earlier run, or your own."""

    process: Literal["schedule"]
    path: str = Field(
        min_length=1,
        description="a schedule.parquet, or a CSV with arrival_s and, if you like, prompt_tokens and max_tokens",
    )
    cell: str | None = Field(None, description="which of a schedule.parquet's cells; null: its only one")
    prompts: str | None = Field(
        None,
        min_length=1,
        description="the prompts.parquet that belongs to it: the same contents again; null: contents of the workload, "
        "as long as the schedule says",
    )


RateArrival = PoissonArrival | GammaArrival | ConstantArrival | RampArrival | PiecewiseArrival | DayArrival
FileArrival = TraceArrival | ScheduleArrival

Arrival = Annotated[
    PoissonArrival
    | GammaArrival
    | ConstantArrival
    | ClosedArrival
    | RampArrival
    | PiecewiseArrival
    | DayArrival
    | TraceArrival
    | ScheduleArrival,
    Field(discriminator="process"),
]
