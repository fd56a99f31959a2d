"""Duration and data of a run before it begins: estimates from the configuration, for `inference-energy check`.

Durations are those that the configuration states, with the session's own guesses for launch, drain and stop. Sizes are
rough upper values of the formats: what a row takes in the streams of a running session, in Parquet, in the receipts and
in the archive together.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inference_energy.acquire.session.settings import SessionSpec
from inference_energy.config.load.arrivals import ClosedArrival, ScheduleArrival, TraceArrival
from inference_energy.config.load.prompts import SyntheticPrompts, mean_tokens
from inference_energy.config.load.workload import LoadPhase, Workload, expected_requests
from inference_energy.config.root import Config
from inference_energy.config.servers import LaunchServer
from inference_energy.stages.params import StageParams

REQUEST_BYTES = 1000
TOKEN_BYTES = 12
"""Of a prompt, of a kept answer, and of kept times of chunks."""

CHANNELS = 16
READING_BYTES = 100
METRICS_BYTES = 10_000
"""Of one reading of /metrics: about 100 series."""

PAGES_BYTES = 10_000_000
"""Report, power traces, and files whose size depends on nothing."""

ANSWER_TOKEN_S, PROMPT_TOKEN_S = 0.01, 0.0005
"""Time of a token in a closed loop, whose number of requests depends on the server."""

OTHER_TOKENS = 500
"""Tokens of a prompt whose length the configuration does not state."""


@dataclass(frozen=True)
class RunEstimate:
    """A run in which nothing is cached.

    Attributes:
        session_s: duration of each session, with the idle baseline that it is the first to need.
        data_bytes: size of all results.
        replayed: windows whose number of requests is in a file; their requests are left out.
    """

    session_s: dict[str, float]
    data_bytes: float
    replayed: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        """Duration of all measurements."""
        return sum(self.session_s.values())


def estimate_run(config: Config) -> RunEstimate:
    """Return how long the sessions of a run take, and how much they write."""
    params = StageParams(config, "here", lambda: False, lambda: False)
    session_s: dict[str, float] = {}
    servers: set[str] = set()
    data_bytes, replayed = float(PAGES_BYTES), []
    for name in config.run:
        session = config.sessions[name]
        planned = SessionSpec.from_dict(params.session(name).model_dump()).planned_s()
        session_s[name] = sum(duration_s for _, duration_s in planned)
        if session.server not in servers and isinstance(config.servers[session.server], LaunchServer):
            session_s[name] += config.idle.cold_s
        servers.add(session.server)
        data_bytes += session_s[name] / config.power.interval_s * CHANNELS * READING_BYTES
        data_bytes += session_s[name] / config.metrics_interval_s * METRICS_BYTES
        for window, phase in _phases(config, name):
            workload = config.workloads[phase.workload]
            requests = _requests(phase, workload)
            if requests is None:
                replayed.append(window)
            else:
                arrival = phase.arrival
                prompts = max(arrival.pool, arrival.concurrency) if isinstance(arrival, ClosedArrival) else requests
                data_bytes += requests * _request_bytes(workload) + prompts * _prompt_tokens(workload) * TOKEN_BYTES
    return RunEstimate(session_s, data_bytes, tuple(replayed))


def disk_shortage(expected: RunEstimate, folder: Path) -> str | None:
    """Return that the folder's disk has less room than the results need; None if it has enough."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes >= expected.data_bytes:
        return None
    return f"the results need about {size_text(expected.data_bytes)}, and only {size_text(free_bytes)} are free here"


def duration_text(duration_s: float) -> str:
    """Return a duration as it is said: `45 s`, `7 min`, `3 h 20 min`, `2 days 3 h`."""
    if duration_s < 90:
        return f"{duration_s:.0f} s"
    minutes = round(duration_s / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days {hours % 24} h"


def size_text(size_bytes: float) -> str:
    """Return a size in MB or GB."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{max(1.0, size_bytes / 1e6):.0f} MB"


def _phases(config: Config, name: str) -> Iterator[tuple[str, LoadPhase]]:
    session = config.sessions[name]
    if session.warmup:
        yield f"sessions.{name}.warmup", session.warmup
    for window in session.windows:
        yield f"windows.{window}", config.windows[window]


def _requests(phase: LoadPhase, workload: Workload) -> float | None:
    """Return the expected number of requests, messages of conversations included; None if a file has it."""
    arrival = phase.arrival
    if isinstance(arrival, TraceArrival | ScheduleArrival):
        return None
    if isinstance(arrival, ClosedArrival):
        answer_s = _answer_tokens(workload) * ANSWER_TOKEN_S + _prompt_tokens(workload) * PROMPT_TOKEN_S
        return arrival.concurrency * max(1.0, phase.duration_s / answer_s)
    turns = 4 if workload.conversations else 1
    return turns * expected_requests(arrival, phase.duration_s)


def _request_bytes(workload: Workload) -> float:
    kept = workload.keep_answers + workload.chunk_times
    return REQUEST_BYTES + kept * _answer_tokens(workload) * TOKEN_BYTES


def _prompt_tokens(workload: Workload) -> float:
    prompts = workload.prompts
    return mean_tokens(prompts.length) if isinstance(prompts, SyntheticPrompts) else OTHER_TOKENS


def _answer_tokens(workload: Workload) -> float:
    return workload.max_tokens if workload.output_length is None else mean_tokens(workload.output_length)
