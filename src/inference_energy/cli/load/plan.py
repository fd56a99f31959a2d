"""The options of `load-test` as the configuration's models, so that there is one way to plan."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from inference_energy.acquire.load.standalone import CELL
from inference_energy.cli.load.mini_syntax import LENGTHS, TIMES, TURNS, distribution, limits, numbers
from inference_energy.cli.load.options import LoadOptions, prompts_of
from inference_energy.config.analysis import Slo
from inference_energy.config.base import Section
from inference_energy.config.load.arrivals import ClosedArrival
from inference_energy.config.load.client import ClientConfig
from inference_energy.config.load.prompts import SyntheticPrompts
from inference_energy.config.load.workload import LoadPhase, Workload, phase_problems
from inference_energy.errors import InputError
from inference_energy.plan.cells import WARMUP, Cell
from inference_energy.plan.prompts.registry import prompt_source

S = TypeVar("S", bound=Section)

USERS = 8
POOL, MOST_OF_A_FILE = 256, 10_000
SEED = 20260701
"""That of the configuration."""

OPTION_OF_KEY = {
    "prompts.path": "prompts",
    "prompts.length": "prompt-length",
    "prompts.prefix": "prefix",
    "output_length": "output-length",
    "max_tokens": "max-tokens",
    "parameters": "parameters",
    "conversations.turns": "turns",
    "conversations.think": "turn-think",
    "history": "history",
    "api": "api",
    "rate_qps": "qps",
    "from_qps": "qps",
    "to_qps": "qps",
    "mean_qps": "qps",
    "steps": "qps",
    "burstiness": "burstiness",
    "concurrency": "concurrency",
    "think": "think",
    "stagger_s": "stagger",
    "pool": "pool",
    "amplitude": "amplitude",
    "period_s": "period",
    "phase": "phase",
    "format": "trace-format",
    "start_s": "trace-start",
    "time_scale": "time-scale",
    "cell": "schedule-cell",
    "prompts": "prompts",
    "duration_s": "duration",
    "request_timeout_s": "timeout",
    "drain_s": "drain",
    "workers": "workers",
    "transport": "transport",
    "api_key_env": "api-key-env",
    "ca_file": "ca-file",
    "connections": "connections",
}

WORDS = (
    (r"^parameters\.(\w+): this field is set from other keys; use .*", r"--parameters: \1 has an option of its own"),
    (r"workloads\.[\w-]+\.prompts\.source: synthetic", "--prompt-length"),
    (r"workloads\.[\w-]+\.conversations", "--turns"),
    (r"workloads\.[\w-]+\.ignore_eos: true|ignore_eos: true", "--ignore-eos"),
    (r"(windows\.[\w-]+|warmup)\.arrival\.lengths: false", "--trace-arrivals-only"),
    (r"(windows\.[\w-]+|warmup)\.arrival\.lengths", "--trace"),
    (r"lengths: false", "--trace-arrivals-only"),
    (r"workloads\.[\w-]+\.prompts\.path", "--prompts"),
    (r"workloads\.[\w-]+\.prompts\.length(\.path)?", "--prompt-length"),
    (r"workloads\.[\w-]+\.prompts(\.prefix)?", "--prompts"),
    (r"workloads\.[\w-]+\.output_length(\.path)?", "--output-length"),
    (r"(windows\.[\w-]+|warmup)\.arrival\.prompts", "--prompts"),
    (r"(windows\.[\w-]+|warmup)\.arrival\.cell", "--schedule-cell"),
    (r"the schedule's own arrival\.prompts|arrival\.prompts", "--prompts with its prompts.parquet"),
    (r"(windows\.[\w-]+|warmup)\.arrival\.path", "--{file}"),
    (r"(windows\.[\w-]+|warmup)(\.arrival)?(?=[:.])", "--{file}"),
    (r"prompts\.form: words, or api: completions", "no --vocabulary, or --api completions"),
    (r"prompts\.form: words", "no --vocabulary"),
    (r"prompts\.source: jsonl, sharegpt or synthetic", "a .jsonl or ShareGPT file, or --prompt-length"),
    (r"\bapi: chat in the workload", "--api chat"),
    (r"\bapi: (chat|completions)", r"--api \1"),
    (r"\bmax_tokens(?=[,:]| in its place)", "--max-tokens"),
    (r"\boutput_length", "--output-length"),
    (r"\bduration_s", "--duration"),
    (r"^conversations:", "--turns:"),
)


def cells_of(options: LoadOptions) -> list[Cell]:
    """The cells to plan: `load-test`, after `warmup` where one was asked for.

    Raises:
        InputError: an option cannot be used; the message names it.
    """
    workload = section(Workload, _workload(options), "workload", options)
    given = {"workload": CELL, "arrival": _arrival(options), "duration_s": options.duration}
    phase = section(LoadPhase, given, "arrival", options)
    for problem in phase_problems(f"windows.{CELL}", phase, workload):
        raise InputError(as_options(str(problem), options))
    cell = Cell(CELL, "steady", CELL, workload, phase.arrival, phase.duration_s)
    if isinstance(phase.arrival, ClosedArrival) and options.pool is None:
        cell = replace(cell, arrival=_with_pool(cell, phase.arrival, options))
    if not options.warmup:
        return [cell]
    return [replace(cell, name=WARMUP, kind=WARMUP, duration_s=options.warmup), cell]


def client_of(options: LoadOptions) -> ClientConfig:
    """The client's settings.

    Raises:
        InputError: an option cannot be used.
    """
    given = {
        "request_timeout_s": options.timeout,
        "drain_s": options.drain,
        "workers": options.workers,
        "transport": options.transport,
        "api_key_env": options.api_key_env,
        "ca_file": options.ca_file,
        "verify": not options.insecure,
        "connections": options.connections,
    }
    return section(ClientConfig, given, "client", options)


def limits_of(options: LoadOptions) -> Slo | None:
    """The limits for goodput."""
    return None if options.limits is None else Slo(**limits(options.limits))


def seed_of(options: LoadOptions) -> int:
    """The seed of all draws."""
    return SEED if options.seed is None else options.seed


def section(model: type[S], given: dict[str, Any], name: str, options: LoadOptions) -> S:
    """A model of the configuration.

    Raises:
        InputError: pydantic's first complaint, with the option in place of the key.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        keys = [str(key) for key in fault["loc"]]
        message = fault["msg"].removeprefix("Value error, ").split("\n")[0]
        found = next((option for key, option in OPTION_OF_KEY.items() if _leads_to(key, keys)), None)
        if found is None:
            text = as_options(message, options)
            raise InputError(text if text.startswith("--") else f"--{name}: {text}") from error
        got = "" if isinstance(fault["input"], dict) else f" (got {fault['input']!r})"
        raise InputError(f"--{found}: {as_options(message, options)}{got}") from error


def as_options(message: str, options: LoadOptions) -> str:
    """A message about the configuration as one about options."""
    file = options.process if options.process in ("trace", "schedule") else "arrival"
    for pattern, option in WORDS:
        message = re.sub(pattern, option.replace("{file}", file), message)
    return message


def _leads_to(key: str, keys: list[str]) -> bool:
    """Whether the parts of `key` come in `keys` in this order, between the names of alternatives."""
    rest = iter(keys)
    return all(part in rest for part in key.split("."))


def _workload(options: LoadOptions) -> dict[str, Any]:
    given: dict[str, Any] = {
        "prompts": _prompts(options),
        "ignore_eos": options.ignore_eos,
        "stream": not options.no_stream,
        "prefix_reuse": options.prefix_reuse,
        "keep_answers": options.answers,
        "chunk_times": options.chunks,
    }
    if options.output_length is not None:
        given["output_length"] = distribution("--output-length", options.output_length, LENGTHS)
    if options.turns is not None:
        given["conversations"] = {"turns": distribution("--turns", options.turns, TURNS)}
        if options.turn_think is not None:
            given["conversations"]["think"] = distribution("--turn-think", options.turn_think, TIMES)
    if options.parameters is not None:
        given["parameters"] = _object(options.parameters)
    for name in ("api", "max_tokens", "history"):
        if getattr(options, name) is not None:
            given[name] = getattr(options, name)
    return given


def _prompts(options: LoadOptions) -> dict[str, Any]:
    if options.prompts is None or options.prompts.endswith(".parquet"):
        if options.prompts and options.process != "schedule":
            raise InputError(f"--prompts: {options.prompts}: a prompts.parquet goes with a --schedule; write it too")
        form = "words" if options.vocabulary is None else "token_ids"
        given: dict[str, Any] = {"source": "synthetic", "form": form}
        if options.prompt_length is not None:
            given["length"] = distribution("--prompt-length", options.prompt_length, LENGTHS)
        if options.prefix is not None:
            given["prefix"] = _prefix(options.prefix)
        return given
    return {"source": _kind(Path(options.prompts)), "path": options.prompts, "order": options.prompt_order or "file"}


def _kind(path: Path) -> str:
    """What a file of prompts is: by its ending, and a .json by its content."""
    if path.suffix == ".jsonl":
        return "jsonl"
    if path.suffix != ".json":
        return "file"
    try:
        with path.open(encoding="utf-8") as file:
            return "sharegpt" if file.read(4096).lstrip().startswith("[") else "jsonl"
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--prompts: {path} cannot be read: {error}") from error


def _prefix(text: str) -> dict[str, Any]:
    count = text.count(":") + 1
    values = numbers("--prefix", text, 3 if count == 3 else 2, "GROUPS:TOKENS or GROUPS:TOKENS:SHARE, such as 8:1024")
    return dict(zip(("groups", "tokens", "share"), values, strict=False))


def _object(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--parameters: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError('--parameters: write a JSON object, such as {"temperature": 0}')
    return content


def _arrival(options: LoadOptions) -> dict[str, Any]:
    process = options.process
    given: dict[str, Any] = {"process": process}
    match process:
        case "closed":
            given["concurrency"] = USERS if options.concurrency is None else options.concurrency
            if options.think is not None:
                given["think"] = distribution("--think", options.think, TIMES)
            given |= _those(options, stagger="stagger_s", pool="pool")
        case "trace":
            given |= {"path": options.trace, "lengths": not options.trace_arrivals_only}
            given["format"] = options.trace_format or _trace_format(str(options.trace))
            given |= _those(options, trace_start="start_s", time_scale="time_scale")
        case "schedule":
            given |= {"path": options.schedule, "prompts": _replayed_prompts(options)}
            given["cell"] = options.schedule_cell or _replayed_cell(str(options.schedule))
        case _:
            given |= _rate(process, str(options.qps)) | _those(
                options, burstiness="burstiness", amplitude="amplitude", period="period_s", phase="phase"
            )
            if process in ("ramp", "piecewise", "day") and options.burstiness is not None:
                given["kind"] = "gamma"
            if process == "day":
                given.setdefault("amplitude", 0.5)
    return given


def _rate(process: str, text: str) -> dict[str, Any]:
    if process == "ramp":
        first, last = numbers("--qps", text, 2, "FROM:TO for a ramp, such as 1:64")
        return {"from_qps": first, "to_qps": last}
    if process == "piecewise":
        steps = [numbers("--qps", step, 2, "RATE:SECONDS,RATE:SECONDS for steps") for step in text.split(",")]
        return {"steps": [{"rate_qps": rate, "duration_s": duration_s} for rate, duration_s in steps]}
    (rate,) = numbers("--qps", text, 1, "one rate in requests/s, such as 64; FROM:TO is for --arrival ramp")
    return {"mean_qps" if process == "day" else "rate_qps": rate}


def _those(options: LoadOptions, **keys: str) -> dict[str, Any]:
    """The options that were given, under their keys."""
    return {key: getattr(options, name) for name, key in keys.items() if getattr(options, name) is not None}


def _trace_format(path: str) -> str:
    """Which trace a file is, by its ending and its first line."""
    if path.endswith(".jsonl"):
        return "mooncake"
    try:
        with Path(path).open(encoding="utf-8") as file:
            head = file.readline(4096).lower().replace(" ", "").replace("_", "")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--trace: {path} cannot be read: {error}") from error
    if "contexttokens" in head:
        return "azure"
    if "requesttokens" in head:
        return "burstgpt"
    raise InputError(f"--trace: {path}: its head line is of no known trace; write --trace-format")


def _replayed_prompts(options: LoadOptions) -> str | None:
    """The contents of a replay: those named, else those beside the schedule, unless others are asked for."""
    if options.prompts is not None:
        return options.prompts if options.prompts.endswith(".parquet") else None
    beside = prompts_of(Path(str(options.schedule)))
    return str(beside) if options.prompt_length is None and beside.is_file() else None


def _replayed_cell(path: str) -> str | None:
    """Of a schedule of ours with a warm-up, the cell that was measured."""
    if not path.endswith(".parquet"):
        return None
    try:
        cells = pq.read_table(path, columns=["cell"])["cell"]
    except (OSError, pa.ArrowInvalid):
        return None  # the plan says what is wrong with it
    return CELL if CELL in cells.unique().to_pylist() else None


def _with_pool(cell: Cell, arrival: ClosedArrival, options: LoadOptions) -> ClosedArrival:
    """Prompts made for a closed loop: all of a file, up to a limit, so that none is sent again before all were."""
    if isinstance(cell.workload.prompts, SyntheticPrompts):
        return arrival.model_copy(update={"pool": POOL})
    try:
        size = prompt_source(cell, SEED).size
    except InputError as error:
        raise InputError(as_options(str(error), options)) from error
    return arrival.model_copy(update={"pool": min(max(size, 1), MOST_OF_A_FILE)})
