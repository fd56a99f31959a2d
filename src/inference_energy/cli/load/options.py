"""The options of `load-test`: which key of `LoadTest` each one sets.

Type, bounds, default and help come from that key's model, unless the table says otherwise. Errors of the models become
errors about options by their location.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from inference_energy.api.load_test.settings import LoadTest
from inference_energy.cli.load import mini_syntax
from inference_energy.cli.load.mini_syntax import LENGTHS, TIMES, TURNS, distribution
from inference_energy.errors import Setting

PROMPTS, ANSWERS, ARRIVALS, TRACES = "Prompts", "Answers", "Arrivals", "Traces and schedules"
CLIENT, RESULTS, POWER = "Client", "Results", "Power"

LENGTH = "normal:MEAN:STD, lognormal:MEAN:STD, uniform:MIN:MAX, fixed:N or a number, empirical:FILE"
TIME = "seconds, exponential:MEAN, lognormal:MEAN:STD or uniform:MIN:MAX"


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: as in the command's signature: `max_tokens` for `--max-tokens`.
        key: the key of `LoadTest` that it sets. A union's members are told apart by their tag: with `arrival.path`,
            `tag` says for which process.
        panel: of the help; None for the first.
        more_keys: keys that it sets instead or too, depending on its value.
        help: instead of the key's description.
        default: set if the option is missing and the key fits; instead of the key's default.
        shown_default: for the help, if the default depends on other options.
        metavar: name of the value in help and messages.
        parse: makes the key's value of the option's name and text.
        constant: value that the option sets, whatever is typed; a flag if the key is a boolean.
        tag: the only member of the key's union that it is for.
        needs: option without which it has no meaning, and what to write.
        excludes: option that it contradicts, and why.
        advice: what to write instead of `--name VALUE`, by value.
        also: other spellings, as other commands have them.
    """

    name: str
    key: str
    panel: str | None = None
    more_keys: tuple[str, ...] = ()
    help: str | None = None
    default: Any = None
    shown_default: str | None = None
    metavar: str | None = None
    parse: Callable[[str, str], Any] | None = None
    constant: Any = None
    tag: str | None = None
    needs: tuple[str, str] | None = None
    excludes: tuple[str, str] | None = None
    advice: Mapping[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """Return the option as it is typed."""
        return "--" + self.name.replace("_", "-")

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys that it can set."""
        return (self.key, *self.more_keys)

    @property
    def is_flag(self) -> bool:
        """Whether it is typed without a value."""
        return self.name == "power" or self.value_type is bool

    @property
    def value_type(self) -> Any:
        """Type of what is typed."""
        return str if self.parse else _typed(model_field(self.key).annotation)

    @property
    def example(self) -> str:
        """Return the option with a placeholder for its value."""
        return self.flag if self.is_flag else f"{self.flag} {self.metavar or 'VALUE'}"


POWER_NEEDED = ("power", "--power")

OPTIONS = (
    Option("endpoint", "endpoints", metavar="URL"),
    Option("model", "model", metavar="NAME"),
    Option("output", "output", metavar="FILE"),
    Option("duration", "duration_s"),
    Option("warmup", "warmup_s"),
    Option(
        "prompts",
        "workload.prompts.path",
        PROMPTS,
        more_keys=("workload.prompts.source", "arrival.prompts"),
        help="Prompt file: text (one per line), .jsonl, ShareGPT .json, or prompts.parquet with --schedule.",
        metavar="FILE",
        advice={
            "jsonl": "--prompts FILE.jsonl",
            "sharegpt": "--prompts SHAREGPT.json",
            "synthetic": "--prompt-length LENGTH",
        },
    ),
    Option("prompt_order", "workload.prompts.order", PROMPTS, metavar="ORDER", default="file"),
    Option(
        "prompt_length",
        "workload.prompts.length",
        PROMPTS,
        help=f"Synthetic prompts of this length: {LENGTH}.",
        metavar="LENGTH",
        parse=partial(distribution, forms=LENGTHS),
    ),
    Option(
        "vocabulary",
        "vocabulary",
        PROMPTS,
        more_keys=("workload.prompts.form",),
        constant="token_ids",
        metavar="N",
    ),
    Option(
        "prefix",
        "workload.prompts.prefix",
        PROMPTS,
        help="Shared prefixes for groups of synthetic prompts.",
        metavar="GROUPS:TOKENS[:SHARE]",
        parse=mini_syntax.prefix,
    ),
    Option(
        "turns",
        "workload.conversations.turns",
        PROMPTS,
        help="Conversations of this many turns: a number, uniform:MIN:MAX or geometric:MEAN:MAX.",
        metavar="TURNS",
        parse=partial(distribution, forms=TURNS),
        excludes=("schedule", "the schedule says which turns there are; leave --turns out"),
    ),
    Option(
        "turn_think",
        "workload.conversations.think",
        PROMPTS,
        help=f"Think time before a conversation's next turn: {TIME}.",
        metavar="TIME",
        parse=partial(distribution, forms=TIMES),
        needs=("turns", "--turns N"),
    ),
    Option("history", "workload.history", PROMPTS, metavar="HISTORY", needs=("turns", "--turns N")),
    Option("prefix_reuse", "workload.prefix_reuse", PROMPTS, help="Send no cache salt for repeated content."),
    Option("api", "workload.api", ANSWERS, metavar="API"),
    Option(
        "no_stream",
        "workload.stream",
        ANSWERS,
        help="Receive each answer in one piece, without TTFT and TPOT.",
        constant=False,
        excludes=("chunks", "without a stream an answer comes in one piece; leave one of the two out"),
    ),
    Option("max_tokens", "workload.max_tokens", ANSWERS, metavar="N"),
    Option(
        "output_length",
        "workload.output_length",
        ANSWERS,
        help="Draw an exact output length for each request, instead of --max-tokens.",
        metavar="LENGTH",
        parse=partial(distribution, forms=LENGTHS),
        needs=("ignore_eos", "--ignore-eos, or the model may end its answers earlier"),
        excludes=("max_tokens", "the first takes the place of the second; leave one of the two out"),
    ),
    Option("ignore_eos", "workload.ignore_eos", ANSWERS, help="Generate exactly as many tokens, whatever the answer."),
    Option(
        "parameters",
        "workload.parameters",
        ANSWERS,
        help='Further fields of a request, such as {"temperature": 0}.',
        metavar="JSON",
        parse=mini_syntax.json_object,
    ),
    Option(
        "arrival",
        "arrival.process",
        ARRIVALS,
        help="Arrival process: poisson, gamma, constant, ramp, piecewise, day, closed, trace or schedule.",
        shown_default="schedule, trace or poisson with --schedule, --trace or --qps, else closed",
        metavar="PROCESS",
    ),
    Option(
        "qps",
        "arrival.rate_qps",
        ARRIVALS,
        more_keys=("arrival.from_qps", "arrival.to_qps", "arrival.steps", "arrival.mean_qps"),
        help="Request rate [requests/s]. For ramp FROM:TO, for piecewise RATE:SECONDS,..., for day the mean.",
        metavar="RATE",
        parse=lambda _, text: text,
    ),
    Option(
        "burstiness",
        "arrival.burstiness",
        ARRIVALS,
        help="Shape of gamma-distributed gaps: 1 is Poisson, below 1 arrivals come in bursts.",
        metavar="B",
    ),
    Option("concurrency", "arrival.concurrency", ARRIVALS, default=8, metavar="N"),
    Option(
        "think",
        "arrival.think",
        ARRIVALS,
        help=f"For closed: think time before a user's next request: {TIME}.",
        metavar="TIME",
        parse=partial(distribution, forms=TIMES),
    ),
    Option("stagger", "arrival.stagger_s", ARRIVALS),
    Option("pool", "arrival.pool", ARRIVALS, metavar="N", shown_default="all of a file up to 10,000, else 256"),
    Option("amplitude", "arrival.amplitude", ARRIVALS, default=0.5),
    Option("period", "arrival.period_s", ARRIVALS),
    Option("phase", "arrival.phase", ARRIVALS, help="For day: fraction of the day already elapsed at the start."),
    Option("seed", "seed", ARRIVALS, metavar="N"),
    Option(
        "trace",
        "arrival.path",
        TRACES,
        tag="trace",
        help="Replay a trace file as published; its format is found by its head line.",
        metavar="FILE",
    ),
    Option(
        "trace_format",
        "arrival.format",
        TRACES,
        help="azure, burstgpt, mooncake or bailian.",
        shown_default="from the file's content",
        metavar="FORMAT",
    ),
    Option("trace_time_unit", "arrival.time_unit", TRACES, metavar="UNIT"),
    Option("trace_block_tokens", "arrival.block_tokens", TRACES, metavar="N"),
    Option("trace_start", "arrival.start_s", TRACES),
    Option("time_scale", "arrival.time_scale", TRACES),
    Option(
        "trace_arrivals_only",
        "arrival.lengths",
        TRACES,
        constant=False,
        help="Take only the arrival times of the trace, not its lengths.",
    ),
    Option(
        "schedule",
        "arrival.path",
        TRACES,
        tag="schedule",
        help="Replay a schedule: .csv, or .parquet with the prompts beside it unless other prompts are given.",
        metavar="FILE",
    ),
    Option("schedule_cell", "arrival.cell", TRACES, metavar="CELL"),
    Option("save_schedule", "save_schedule", TRACES, metavar="FILE"),
    Option("plan_only", "plan_only", TRACES),
    Option("workers", "client.workers", CLIENT),
    Option("transport", "client.transport", CLIENT, metavar="TRANSPORT"),
    Option("connections", "client.connections", CLIENT),
    Option("max_answer_mib", "client.max_answer_mib", CLIENT),
    Option("timeout", "client.request_timeout_s", CLIENT),
    Option("drain", "client.drain_s", CLIENT),
    Option("api_key_env", "client.api_key_env", CLIENT, metavar="NAME"),
    Option(
        "ca_file",
        "client.ca_file",
        CLIENT,
        metavar="FILE",
        excludes=("insecure", "nothing is checked then; leave one of the two out"),
    ),
    Option("insecure", "client.verify", CLIENT, constant=False, help="Do not check the server's certificate."),
    Option(
        "limits",
        "limits",
        RESULTS,
        help="Report goodput under these SLOs [s] of ttft, tpot, itl (needs --chunks), e2e.",
        metavar="ttft=0.5,tpot=0.05",
        parse=mini_syntax.limits,
    ),
    Option("chunks", "workload.chunk_times", RESULTS, help="Also log the time of every chunk, for ITL."),
    Option("answers", "workload.keep_answers", RESULTS, help="Also keep the text of every answer."),
    Option(
        "power",
        "power",
        POWER,
        help="Log power as log-power does, from 1 s before the load to 1 s after.",
    ),
    Option("power_source", "power.sources", POWER, metavar="SOURCE", needs=POWER_NEEDED, also=("--source",)),
    Option("gpu", "power.gpus", POWER, metavar="GPU", needs=POWER_NEEDED),
    Option("tdp_w", "power.tdp_w", POWER, needs=POWER_NEEDED),
    Option("idle_w", "power.idle_w", POWER, needs=POWER_NEEDED),
)
BY_NAME = {option.name: option for option in OPTIONS}


def models_with(key: str) -> tuple[list[type[BaseModel]], str]:
    """Return the models that have a key, one unless a union is on its way, and the key's last part."""
    models: list[type[BaseModel]] = [LoadTest]
    *sections, name = key.split(".")
    for section in sections:
        fields = [model.model_fields[section] for model in models if section in model.model_fields]
        models = [member for one in fields for member in _models(one.annotation)]
    return [model for model in models if name in model.model_fields], name


@cache
def model_field(key: str) -> FieldInfo:
    """Return the field of a key; of a union, that of the first member which has it."""
    models, name = models_with(key)
    return models[0].model_fields[name]


def tags(option: Option) -> list[str]:
    """Return the members that an option is for: of `arrival` by process, of `workload.prompts` by source."""
    if option.tag:
        return [option.tag]
    discriminator = "process" if option.key.startswith("arrival.") else "source"
    members = [
        model.model_fields[discriminator]
        for key in option.keys
        for model in models_with(key)[0]
        if discriminator in model.model_fields
    ]
    return list(dict.fromkeys(get_args(member.annotation)[0] for member in members))


def option_at(location: Sequence[str], process: str) -> Option:
    """Return the option that sets the key at a location, with or without the tags of unions; else the nearest one."""
    keys = _without_tags(location)
    fitting = [option for option in OPTIONS if not option.key.startswith("arrival.") or process in tags(option)]
    above = [(len(key), option.name) for option in fitting for key in option.keys if _begins(keys, key.split("."))]
    if above:
        return BY_NAME[max(above)[1]]
    if process in BY_NAME and keys[:1] == ["arrival"]:
        return BY_NAME[process]
    below = [option for option in fitting if keys and _begins(option.key.split("."), keys)]
    return below[0] if below else BY_NAME["arrival"]


def spell(process: str) -> Callable[[Setting], str]:
    """Return how a setting of a configuration, or of `LoadTest`, is typed as an option."""

    def spelled(setting: Setting) -> str:
        if setting.key.startswith("--"):
            return setting.key
        location = _location(setting.key)
        option = option_at(location, process)
        if setting.value is None:
            return option.flag
        if advice := option.advice.get(str(setting.value)):
            return advice
        if option.is_flag or option.constant is not None:
            set_to = True if option.constant is None else option.constant
            return option.flag if setting.value == set_to else f"no {option.flag}"
        return f"{option.flag} {setting.value}"

    return spelled


def _location(key: str) -> list[str]:
    """Return where a key of the configuration is in `LoadTest`: of `workloads.NAME.api`, `workload.api`."""
    parts = [part for part in key.split(".") if part]
    match parts:
        case ["workloads", _, *rest]:
            return ["workload", *rest]
        case ["windows", _, *rest] | ["warmup", *rest]:
            return rest
        case ["endpoint"]:
            return ["endpoints"]
    return parts


def _begins(keys: Sequence[str], first: Sequence[str]) -> bool:
    return [*keys[: len(first)]] == [*first]


def _without_tags(location: Sequence[str]) -> list[str]:
    """Return a location without the tags that pydantic puts into it for the members of unions."""
    keys: list[str] = []
    models: list[type[BaseModel]] = [LoadTest]
    for part in location:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        if fields or not models:
            keys.append(part)
            models = [member for one in fields for member in _models(one.annotation)]
    return keys


def _members(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    elif get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif annotation is not type(None):
        yield annotation


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [one for one in _members(annotation) if isinstance(one, type) and issubclass(one, BaseModel)]


def _typed(annotation: Any) -> Any:
    """Return what a command line takes for a key of this type."""
    (member,) = _members(annotation)
    if get_origin(member) is list:
        return list[str]
    return member if member in (bool, int, float, Path) else str
