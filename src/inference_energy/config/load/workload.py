"""Workloads, phases of load, sessions and idle times, and the checks that a phase is possible."""

from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from inference_energy.config.base import MOST_SECONDS, Section
from inference_energy.config.load.arrivals import (
    MOST_REQUESTS,
    NO_TIME,
    Arrival,
    ClosedArrival,
    DayArrival,
    FileArrival,
    PiecewiseArrival,
    RampArrival,
    RateArrival,
    ScheduleArrival,
    Time,
    TraceArrival,
)
from inference_energy.config.load.prompts import (
    MOST_TOKENS,
    FilePrompts,
    FixedTurns,
    Length,
    PromptsConfig,
    QuestionPrompts,
    SyntheticPrompts,
    Turns,
    mean_tokens,
)
from inference_energy.contracts.load_client import Api, History, WorkloadSettings
from inference_energy.errors import Notice, Setting, SettingsError

MAX_TOKENS = 256
MOST_PROMPT_TOKENS = 2_000_000_000
"""More tokens in the prompts of a window, all of which are made before it, are taken for a mistake."""

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

    prompts: PromptsConfig = Field(description="where prompts come from")
    conversations: Conversations | None = Field(None, description="chats of several turns; null: single requests")
    max_tokens: int = Field(MAX_TOKENS, ge=1, le=MOST_TOKENS, description="most tokens generated for a request")
    output_length: Length | None = Field(
        None, description="exact answer lengths, drawn for each request, in place of max_tokens; needs ignore_eos: true"
    )
    ignore_eos: bool = Field(
        WorkloadSettings.ignore_eos,
        description="generate exactly max_tokens, or what output_length draws; false: an answer may end earlier",
    )
    api: Api = Field(
        WorkloadSettings.api,
        description="completions: /v1/completions; chat: /v1/chat/completions, a prompt as user message",
    )
    stream: bool = Field(
        WorkloadSettings.stream, description="have tokens sent as they come; false: no time of a first token"
    )
    prefix_reuse: bool = Field(
        WorkloadSettings.prefix_reuse,
        description="let the server reuse the cached prefix of a prompt sent before; false sends a cache salt",
    )
    history: History = Field(
        WorkloadSettings.history,
        description="what a conversation's later turns begin with. actual: the server's own answers; planned: those of "
        "the recorded conversation, or random words: every run asks the same",
    )
    keep_answers: bool = Field(
        WorkloadSettings.keep_answers, description="keep the text of every answer in answers.parquet"
    )
    chunk_times: bool = Field(
        WorkloadSettings.chunk_times, description="keep the time of every arrival of an answer in chunks.parquet"
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="further fields of a request, such as temperature or top_p"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = [*self._lengths(), *self._conversations(), *self._parameters()]
        if problems:
            raise SettingsError(problems)
        return self

    def _lengths(self) -> list[Notice]:
        if self.output_length is None:
            return []
        problems = []
        if not self.ignore_eos:
            text = "a model may end its answers earlier, and then they are not so distributed"
            problems.append(Notice(text, "output_length", (Setting("ignore_eos", True),)))
        if self.max_tokens != MAX_TOKENS:
            problems.append(Notice("output_length takes its place; leave one of the two out", "max_tokens"))
        return problems

    def _conversations(self) -> list[Notice]:
        as_ids = isinstance(self.prompts, SyntheticPrompts) and self.prompts.form == "token_ids"
        if self.conversations is None:
            if as_ids and self.api == "chat":
                write = (Setting("prompts.form", "words"), Setting("api", "completions"))
                return [Notice("a chat takes no token ids", "api", write)]
            return []
        key, problems = "conversations", []
        if self.api != "chat":
            problems.append(Notice("conversations need messages", key, (Setting("api", "chat"),)))
        if as_ids:
            problems.append(Notice("messages are texts", key, (Setting("prompts.form", "words"),)))
        if isinstance(self.prompts, FilePrompts):
            others = tuple(Setting("prompts.source", source) for source in ("jsonl", "sharegpt", "synthetic"))
            problems.append(Notice("a text file holds single prompts", key, others))
        if isinstance(self.prompts, QuestionPrompts):
            problems.append(Notice("each question stands alone; leave conversations out", key))
        return problems

    def _parameters(self) -> list[Notice]:
        return [
            Notice(f"this field is set from other keys; use {OURS[name]}", f"parameters.{name}")
            for name in self.parameters
            if name in OURS
        ]


class LoadPhase(Section):
    """A stretch of load: a workload arriving in some way for some time."""

    workload: str = Field(description="a key of `workloads`")
    arrival: Arrival = Field(description="arrival process")
    duration_s: float = Field(gt=0, le=MOST_SECONDS, description="how long requests are sent [s]")


class WindowConfig(LoadPhase):
    """A measured stretch of load."""

    kind: Literal["steady", "prefill", "decode"] = Field(
        "steady", description="steady: realistic load, tested for steadiness; prefill, decode: only for the fit"
    )


class Session(Section):
    """One life of a server: launch, loaded idle, warm-up, windows in order, stop."""

    server: str = Field(description="a key of `servers`")
    warmup: LoadPhase | None = Field(None, description="load before the first window; null leaves it out")
    windows: list[str] = Field(min_length=1, description="keys of `windows`, measured in this order")


class IdleConfig(Section):
    """Idle baselines."""

    cold_s: float = Field(60, gt=0, le=MOST_SECONDS, description="before the server starts [s]")
    loaded_s: float = Field(30, gt=0, le=MOST_SECONDS, description="with the server up and no request [s]")
    post_s: float = Field(30, ge=0, le=MOST_SECONDS, description="after the server has gone, for the drift test [s]")
    settle_s: float = Field(
        3, ge=0, le=MOST_SECONDS, description="wait before the loaded and the post-run baseline [s]"
    )


def phase_problems(key: str, phase: LoadPhase, workload: Workload) -> Iterator[Notice]:
    """What is wrong with a phase.

    Args:
        key: where it stands, such as `windows.low`.
        phase: the phase.
        workload: its workload.

    Yields:
        A notice for each problem, with its key and what to write.
    """
    arrival = phase.arrival
    if not isinstance(arrival, FileArrival | ClosedArrival):
        expected = expected_requests(arrival, phase.duration_s)
        if expected > MOST_REQUESTS:
            yield Notice(
                f"about {expected:.3g} requests in {phase.duration_s:g} s, which is more than "
                f"{MOST_REQUESTS // 1_000_000} million and would not fit; write a lower rate or a shorter duration",
                key,
            )
    if isinstance(workload.prompts, SyntheticPrompts) and not isinstance(arrival, FileArrival):
        if isinstance(arrival, ClosedArrival):
            prompts: float = max(arrival.pool, arrival.concurrency)
        else:
            prompts = expected_requests(arrival, phase.duration_s)
        tokens = prompts * mean_tokens(workload.prompts.length)
        if prompts <= MOST_REQUESTS and tokens > MOST_PROMPT_TOKENS:
            yield Notice(
                f"prompts of about {tokens:.2g} tokens in all, which is more than {MOST_PROMPT_TOKENS:.0e} and would "
                "not fit; write shorter or fewer ones",
                f"workloads.{phase.workload}.prompts.length",
            )
    if isinstance(arrival, TraceArrival) and arrival.lengths:
        name, lengths = f"workloads.{phase.workload}", f"{key}.arrival.lengths"
        without = Setting(lengths, False)
        if not isinstance(workload.prompts, SyntheticPrompts):
            text = "only synthetic prompts can be as long as the trace's"
            yield Notice(text, lengths, (without, Setting(f"{name}.prompts.source", "synthetic")))
        if workload.conversations:
            yield Notice("a trace has single requests and no conversations", lengths, (without,))
        if not workload.ignore_eos:
            text = "a model ends its answers where it likes"
            yield Notice(text, lengths, (Setting(f"{name}.ignore_eos", True), without))
    if isinstance(arrival, ScheduleArrival) and workload.conversations:
        text = f"the schedule says which turns there are; leave out workloads.{phase.workload}.conversations"
        yield Notice(text, f"{key}.arrival")


def expected_requests(arrival: RateArrival, duration_s: float) -> float:
    """How many arrivals are expected: the integral of the rate; of a day that over whole periods."""
    if isinstance(arrival, RampArrival):
        return (arrival.from_qps + arrival.to_qps) / 2 * duration_s
    if isinstance(arrival, DayArrival):
        return arrival.mean_qps * duration_s
    if isinstance(arrival, PiecewiseArrival):
        rounds, left_s = divmod(duration_s, sum(step.duration_s for step in arrival.steps))
        expected = rounds * sum(step.rate_qps * step.duration_s for step in arrival.steps)
        for step in arrival.steps:
            expected += step.rate_qps * min(step.duration_s, left_s)
            left_s = max(0.0, left_s - step.duration_s)
        return expected
    return arrival.rate_qps * duration_s
