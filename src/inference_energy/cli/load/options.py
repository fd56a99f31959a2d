"""What `load-test` was told, as plain values: they go to the processes that plan and that sum up.

What `load-test` was told, as plain values: they go to the processes that plan and that sum up.

Options of `load-test` that do not go together.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from inference_energy.acquire.load.standalone import CELL
from inference_energy.cli.load.mini_syntax import limits
from inference_energy.errors import InputError

BESIDE = "requests"
"""Files beside an output of this name need not repeat it."""


@dataclass(frozen=True)
class LoadOptions:
    """One attribute an option, named like it; None, empty or False where it was not given.

    `parameters`, `prompt_length` and the like are as typed; see `spelled`.
    """

    endpoint: tuple[str, ...]
    model: str
    output: str
    duration: float = 600.0
    warmup: float = 0.0
    prompts: str | None = None
    prompt_order: str | None = None
    prompt_length: str | None = None
    prefix: str | None = None
    vocabulary: int | None = None
    turns: str | None = None
    turn_think: str | None = None
    history: str | None = None
    prefix_reuse: bool = False
    api: str | None = None
    no_stream: bool = False
    max_tokens: int | None = None
    output_length: str | None = None
    ignore_eos: bool = False
    parameters: str | None = None
    arrival: str | None = None
    qps: str | None = None
    burstiness: float | None = None
    concurrency: int | None = None
    think: str | None = None
    stagger: float | None = None
    pool: int | None = None
    amplitude: float | None = None
    period: float | None = None
    phase: float | None = None
    trace: str | None = None
    trace_format: str | None = None
    trace_start: float | None = None
    time_scale: float | None = None
    trace_arrivals_only: bool = False
    schedule: str | None = None
    schedule_cell: str | None = None
    seed: int | None = None
    workers: int = 1
    transport: str = "auto"
    connections: int | None = None
    timeout: float = 300.0
    drain: float = 60.0
    api_key_env: str | None = None
    ca_file: str | None = None
    insecure: bool = False
    limits: str | None = None
    chunks: bool = False
    answers: bool = False
    save_schedule: str | None = None
    plan_only: bool = False
    power: bool = False
    power_source: tuple[str, ...] = ()
    gpu: tuple[str, ...] = ()
    tdp_w: float | None = None
    idle_w: float | None = None

    @property
    def process(self) -> str:
        """How requests arrive: `--arrival`, or what the other options imply."""
        if self.arrival is not None:
            return self.arrival
        return self.implied[0]

    @property
    def implied(self) -> tuple[str, str]:
        """The process that the other options imply, and which of them does."""
        if self.schedule is not None:
            return "schedule", "--schedule"
        if self.trace is not None:
            return "trace", "--trace"
        if self.qps is not None:
            return "poisson", "--qps"
        return "closed", "a closed loop (there is no --qps and no --arrival)"

    @property
    def cells(self) -> dict[str, float]:
        """What is sent one after another: names and durations [s]."""
        return {**({"warmup": self.warmup} if self.warmup else {}), CELL: self.duration}

    def beside(self, name: str) -> Path:
        """A file beside the output: of requests.csv power.parquet, of run.csv run-power.parquet."""
        output = Path(self.output)
        return output.with_name(name if output.stem == BESIDE else f"{output.stem}-{name}")

    @property
    def targets(self) -> list[Path]:
        """Files that are certainly written, one for each folder that is needed."""
        return [*(self.saved or ()), *([] if self.plan_only else [Path(self.output)])]

    @property
    def saved(self) -> tuple[Path, Path] | None:
        """Where the plan is kept: its schedule and its prompts."""
        if self.save_schedule is None and not self.plan_only:
            return None
        schedule = Path(self.save_schedule) if self.save_schedule else self.beside("schedule.parquet")
        return schedule, prompts_of(schedule)

    def as_json(self) -> str:
        """For another process."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "LoadOptions":
        """From values by name, as they come from the command line or from JSON."""
        lists = {name: tuple(given[name] or ()) for name in ("endpoint", "power_source", "gpu")}
        paths = {name: str(value) for name, value in given.items() if isinstance(value, Path)}
        return cls(**{**given, **lists, **paths})

    @classmethod
    def from_json(cls, text: str) -> "LoadOptions":
        """What `as_json` wrote."""
        return cls.of(json.loads(text))


def prompts_of(schedule: Path) -> Path:
    """Where the prompts of a schedule file lie: prompts.parquet, or with another name mine-prompts.parquet."""
    name = schedule.name
    return schedule.with_name(
        name.replace("schedule", "prompts") if "schedule" in name else f"{schedule.stem}-prompts.parquet"
    )


@dataclass(frozen=True)
class LoadPlan:
    """What was found and planned before the load; JSON-able.

    Attributes:
        endpoints: base URLs; `model` is the name there.
        workload, client: settings for the load processes, see `acquire.load.standalone.LoadRun`.
        server_pid: the server's process where it is on this machine and may be seen.
        scheduled: whether requests have times of their own, as in open loops.
        plan: of the cell `load-test`, for people: `requests`, `prompts`, `span_s`, `output_tokens`, `prompt_tokens`.
        notes: what was left out of files.
        clock_anchor: for the files' times.
    """

    endpoints: tuple[str, ...]
    model: str
    workload: dict[str, Any]
    client: dict[str, Any]
    server_pid: int | None
    scheduled: bool
    plan: dict[str, float | None]
    notes: tuple[str, ...]
    clock_anchor: dict[str, int]


@dataclass(frozen=True)
class SentLoad:
    """What the parent knows after the load; JSON-able.

    Attributes:
        start_ns, end_ns, drained_ns: of the cell, None where it was stopped before it had ended.
        stopped_ns: when it was stopped.
        client: see `acquire.load.worker_pool.WorkerPool.finish`.
        machine_busy_s: CPU time of all programs of this machine in the cell [s]; None where it is not known.
        failure: what broke the load off; None: nothing did.
        power: what the sampler counted, see `acquire.power.process.SamplerStats`; None without one.
    """

    start_ns: int | None = None
    end_ns: int | None = None
    drained_ns: int | None = None
    stopped_ns: int | None = None
    client: dict[str, object] = field(default_factory=dict)
    machine_busy_s: float | None = None
    failure: str | None = None
    power: dict[str, object] | None = None


RATES = ("poisson", "gamma", "constant", "ramp", "piecewise", "day")
MODULATED = ("gamma", "ramp", "piecewise", "day")
PROCESSES = (*RATES, "closed", "trace", "schedule")
OF_A_CLOSED_LOOP = "belongs to a closed loop: leave it out, or write --arrival closed without --qps"


@dataclass(frozen=True)
class _Belongs:
    """To which arrivals an option belongs, and what to write where it has none of them."""

    processes: tuple[str, ...]
    otherwise: str


OF_ARRIVALS = {
    "qps": _Belongs(RATES, "is for a rate: leave it out, or write --arrival poisson, gamma, constant, ramp or day"),
    "burstiness": _Belongs(MODULATED, "is for gamma-distributed gaps: leave it out, or write --arrival gamma"),
    "concurrency": _Belongs(("closed",), OF_A_CLOSED_LOOP),
    "think": _Belongs(("closed",), OF_A_CLOSED_LOOP),
    "stagger": _Belongs(("closed",), OF_A_CLOSED_LOOP),
    "pool": _Belongs(("closed",), OF_A_CLOSED_LOOP),
    "amplitude": _Belongs(("day",), "belongs to a day: leave it out, or write --arrival day"),
    "period": _Belongs(("day",), "belongs to a day: leave it out, or write --arrival day"),
    "phase": _Belongs(("day",), "belongs to a day: leave it out, or write --arrival day"),
    "trace": _Belongs(("trace",), "belongs to a trace: leave it out, or write --arrival trace"),
    "trace_format": _Belongs(("trace",), "belongs to a trace: leave it out, or write --trace FILE"),
    "trace_start": _Belongs(("trace",), "belongs to a trace: leave it out, or write --trace FILE"),
    "time_scale": _Belongs(("trace",), "belongs to a trace: leave it out, or write --trace FILE"),
    "trace_arrivals_only": _Belongs(("trace",), "belongs to a trace: leave it out, or write --trace FILE"),
    "schedule": _Belongs(("schedule",), "says when requests are sent: leave one of the two out"),
    "schedule_cell": _Belongs(("schedule",), "belongs to a schedule: leave it out, or write --schedule FILE"),
}
NEEDED = {
    **dict.fromkeys(RATES, ("qps", "--qps N")),
    "trace": ("trace", "--trace FILE"),
    "schedule": ("schedule", "--schedule FILE"),
}
TOGETHER = (
    ("prompts", "prompt_length", "the file's prompts are as long as they are; leave one of the two out"),
    ("prompts", "vocabulary", "it is for synthetic prompts; leave one of the two out"),
    ("prompts", "prefix", "it is for synthetic prompts; leave one of the two out"),
    ("max_tokens", "output_length", "the second takes the place of the first; leave one of the two out"),
    ("turns", "schedule", "the schedule says which turns there are; leave --turns out"),
    ("no_stream", "chunks", "without a stream an answer comes in one piece; leave one of the two out"),
    ("ca_file", "insecure", "nothing is checked then; leave one of the two out"),
)
NEEDS = (
    ("prompt_order", "prompts", "--prompts FILE"),
    ("turn_think", "turns", "--turns N"),
    ("history", "turns", "--turns N"),
    ("output_length", "ignore_eos", "--ignore-eos, or the model may end its answers earlier"),
    ("power_source", "power", "--power"),
    ("gpu", "power", "--power"),
    ("tdp_w", "power", "--power"),
    ("idle_w", "power", "--power"),
)


def refuse_contradictions(options: LoadOptions) -> None:
    """Look at options that cannot all be meant.

    Raises:
        InputError: names both and says what to write.
    """
    _endings(options)
    process = options.process
    if process not in PROCESSES:
        raise InputError(f"--arrival {process}: write one of {', '.join(PROCESSES)}")
    said = f"--arrival {process}" if options.arrival else options.implied[1]
    for name, belongs in OF_ARRIVALS.items():
        if _given(options, name) and process not in belongs.processes:
            raise InputError(f"{_option(name)} and {said}: {_option(name)} {belongs.otherwise}")
    needed, example = NEEDED.get(process, (None, ""))
    if needed and not _given(options, needed):
        raise InputError(f"--arrival {process}: write {example} too")
    if process == "gamma" and options.burstiness is None:
        raise InputError("--arrival gamma: write --burstiness B too; below 1 arrivals come in bursts, 1 is Poisson")
    for first, second, why in TOGETHER:
        if _given(options, first) and _given(options, second):
            raise InputError(f"{_option(first)} and {_option(second)}: {why}")
    for first, second, what in NEEDS:
        if _given(options, first) and not _given(options, second):
            raise InputError(f"{_option(first)}: write {what} too")
    if not (options.prompts or options.prompt_length or options.trace or options.schedule):
        raise InputError("--prompts: write a file with prompts, or --prompt-length normal:256:64 for synthetic ones")
    _limits(options)


def _endings(options: LoadOptions) -> None:
    if Path(options.output).suffix not in (".csv", ".parquet"):
        raise InputError(f"--output: {options.output} must end in .csv or .parquet")
    if options.save_schedule is not None and Path(options.save_schedule).suffix != ".parquet":
        raise InputError(f"--save-schedule: {options.save_schedule} must end in .parquet")


def _limits(options: LoadOptions) -> None:
    if options.limits is None:
        return
    wanted = limits(options.limits)
    if options.no_stream and {*wanted} - {"e2e_s"}:
        raise InputError("--limits and --no-stream: without a stream only e2e is known; write --limits e2e=10")
    if "itl_s" in wanted and not options.chunks:
        raise InputError("--limits itl: times between tokens need the time of every arrival; write --chunks too")


def _given(options: LoadOptions, name: str) -> bool:
    return getattr(options, name) not in (None, False, ())


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
