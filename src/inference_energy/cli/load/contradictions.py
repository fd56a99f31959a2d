"""Options of `load-test` that do not go together."""

from dataclasses import dataclass
from pathlib import Path

from inference_energy.cli.load.options import LoadOptions
from inference_energy.cli.load.spelled import limits
from inference_energy.errors import InputError

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
