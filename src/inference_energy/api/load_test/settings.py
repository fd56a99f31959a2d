"""Model of a load test: its load in the sections of the configuration, its files and its power log."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from inference_energy.acquire.load.standalone import CELL, WARMUP
from inference_energy.config.analysis import Slo
from inference_energy.config.base import MOST_SECONDS, Section
from inference_energy.config.load.arrivals import Arrival
from inference_energy.config.load.client import ClientConfig
from inference_energy.config.load.workload import LoadPhase, Workload, phase_problems
from inference_energy.config.servers import Endpoint
from inference_energy.config.validation import problems
from inference_energy.contracts.documents.by_hand import PlanFacts
from inference_energy.contracts.documents.session import LoadClient
from inference_energy.contracts.load_client import WorkloadSettings
from inference_energy.contracts.outside import path_name
from inference_energy.errors import InputError, Notice, Setting, SettingsError

SEED = 20260701
"""The default seed of the configuration, too."""
REQUESTS = "requests"
"""An output of this name gives its neighbors no prefix, see `LoadTest.beside`."""


class PowerLog(Section):
    """The power log beside a load test."""

    sources: list[str] = Field([], description="power source, may be repeated")
    gpus: list[str] = Field([], description="GPU by index or UUID, may be repeated")
    tdp_w: float | None = Field(None, gt=0, description="CPU power at full load, for modelled power [W]")
    idle_w: float = Field(0.0, ge=0, description="CPU power at idle [W]")

    @model_validator(mode="after")
    def _idle_is_below_full_load(self) -> Self:
        if self.tdp_w is not None and self.idle_w >= self.tdp_w:
            text = f"{self.idle_w:g} W must be below tdp_w, {self.tdp_w:g} W"
            raise SettingsError([Notice(text, "idle_w")])
        return self


class LoadTest(Section):
    """All settings of a load test. Keys that are not set keep the defaults of the configuration.

    Raises:
        InputError: a key is unknown or missing, or a value cannot be used; the message names each, and what to write.
    """

    endpoints: list[Endpoint] = Field(
        min_length=1,
        description="base URL of an OpenAI-compatible server, without /v1; several are used in turn, and a "
        "conversation stays where it began",
    )
    model: str = Field(description="model name at the endpoint")
    output: Path = Field(description="request log to write; CSV or Parquet by its ending")
    duration_s: float = Field(600.0, ge=0.1, le=MOST_SECONDS, description="how long requests are sent [s]")
    warmup_s: float = Field(
        0.0,
        ge=0,
        le=MOST_SECONDS,
        description="warm-up duration; its requests go to a separate file and count in no figure [s]",
    )
    workload: Workload = Field(description="what a request asks, as a section of `workloads`")
    arrival: Arrival = Field(description="when requests are sent, as `windows.*.arrival`")
    seed: int = Field(SEED, ge=0, description="seed of every random draw")
    vocabulary: int | None = Field(
        None,
        ge=1,
        lt=2**31,
        description="synthetic prompts of token ids below this number, of exact lengths; null: words",
    )
    client: ClientConfig = Field(
        default_factory=ClientConfig, description="how requests are sent, as the section `client` of the configuration"
    )
    limits: Slo | None = Field(None, description="SLOs for goodput, as `analysis.slo`; null: no goodput")
    save_schedule: Path | None = Field(None, description="keep the schedule in this .parquet, its prompts beside it")
    plan_only: bool = Field(False, description="write the plan, print what it holds, send nothing")
    power: PowerLog | None = Field(
        None, description="log power from 1 s before the load to 1 s after, as PowerLog says; null: no power log"
    )

    def __init__(self, **settings: Any) -> None:
        """Check the settings, given as keywords."""
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise _input_error(error, settings) from error

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Check the settings, given as one mapping with nested mappings or sections."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise _input_error(error, obj) from error

    @field_validator("output", "save_schedule")
    @classmethod
    def _is_the_name_of_a_table(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        endings = (".csv", ".parquet") if info.field_name == "output" else (".parquet",)
        if path is not None and path.suffix not in endings:
            raise ValueError(f"{path_name(path)}: the name must end in {' or '.join(endings)}")
        if path is not None and "\0" in str(path):
            raise ValueError(f"{path_name(path)}: this cannot be the name of a file")
        return path

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        # The warm-up has the same arrivals, so what fits into the longer of the two fits into both.
        phase = LoadPhase(workload=CELL, arrival=self.arrival, duration_s=max(self.duration_s, self.warmup_s))
        if notices := self._limits():
            raise SettingsError(notices)
        if notices := [with_own_keys(notice) for notice in phase_problems(f"windows.{CELL}", phase, self.workload)]:
            raise SettingsError(notices)
        return self

    def _limits(self) -> list[Notice]:
        set_keys = [name for name, value in self.limits or () if value is not None]
        if not self.workload.stream and (beyond := [name for name in set_keys if name != "e2e_s"]):
            text = "without a stream only e2e is known"
            return [Notice(text, f"limits.{beyond[0]}", (Setting("workload.stream", True),))]
        if "itl_s" in set_keys and not self.workload.chunk_times:
            text = "times between tokens need the time of every chunk"
            return [Notice(text, "limits.itl_s", (Setting("workload.chunk_times", True),))]
        return []

    @property
    def cells(self) -> dict[str, float]:
        """Return names and durations [s] of the parts that are sent one after another."""
        return {**({WARMUP: self.warmup_s} if self.warmup_s else {}), CELL: self.duration_s}

    @property
    def saved(self) -> tuple[Path, Path] | None:
        """Return the files that keep the plan, its schedule and its prompts; None if it is not kept."""
        if self.save_schedule is None and not self.plan_only:
            return None
        schedule = self.save_schedule or self.beside("schedule.parquet")
        return schedule, prompts_beside(schedule)

    @property
    def targets(self) -> list[Path]:
        """Return files that are certainly written, at least one in each folder that is needed."""
        return [*(self.saved or ()), *([] if self.plan_only else [self.output])]

    def beside(self, name: str) -> Path:
        """Return the path of a file beside the output: power.parquet of requests.csv, run-power.parquet of run.csv."""
        return self.output.with_name(name if self.output.stem == REQUESTS else f"{self.output.stem}-{name}")

    def as_json(self) -> dict[str, Any]:
        """Return the keys that were set, for `model_validate` in another process."""
        return self.model_dump(mode="json", exclude_unset=True)


def load_test_problems(error: ValidationError, settings: Any) -> list[Notice]:
    """Return what is wrong with the settings of a load test, by key."""
    return problems(error, settings, "docs/reference/python-api.md")


def with_own_keys(notice: Notice) -> Notice:
    """Return a notice about the configuration of a load test's cell with the keys of `LoadTest`."""

    def own(key: str) -> str:
        if f".{CELL}" not in key:
            return key
        section, _, rest = key.partition(f".{CELL}")
        return f"workload{rest}" if section == "workloads" else rest.removeprefix(".") or "arrival"

    text = notice.text.replace(f"workloads.{CELL}.", "workload.")
    return Notice(text, own(notice.key), tuple(Setting(own(setting.key), setting.value) for setting in notice.write))


def _input_error(error: ValidationError, settings: Any) -> InputError:
    notices = load_test_problems(error, settings)
    if len(notices) == 1:
        return InputError(notices[0].text, key=notices[0].key, write=notices[0].write)
    return InputError("\n".join(["the load test is wrong:", *(f"  {notice}" for notice in notices)]))


def prompts_beside(schedule: Path) -> Path:
    """Return the path of a schedule's prompts: prompts.parquet of schedule.parquet, x-prompts.parquet of x.parquet."""
    name = schedule.name
    return schedule.with_name(
        name.replace("schedule", "prompts") if "schedule" in name else f"{schedule.stem}-prompts.parquet"
    )


@dataclass(frozen=True)
class LoadPlan:
    """The endpoints and the plan before the load; JSON-able.

    Attributes:
        endpoints: base URLs; `model` is the name there.
        workload: settings of the workload that the plan's files do not hold.
        server_pid: the server's process if it is on this machine and visible.
        scheduled: whether requests have times of their own, as in open loops.
        plan: facts about the cell `load-test`.
        notes: notices about rows of files that were left out.
        clock_anchor: for the times in files.
    """

    endpoints: tuple[str, ...]
    model: str
    workload: WorkloadSettings
    server_pid: int | None
    scheduled: bool
    plan: PlanFacts
    notes: tuple[Notice, ...]
    clock_anchor: dict[str, int]

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Return the plan of another process, which came as JSON."""
        typed = {
            "endpoints": tuple(content["endpoints"]),
            "workload": WorkloadSettings(**content["workload"]),
            "plan": msgspec.convert(content["plan"], PlanFacts),
            "notes": tuple(map(Notice.from_dict, content["notes"])),
        }
        return cls(**{**content, **typed})


@dataclass(frozen=True)
class SentLoad:
    """The parent's record of the load; JSON-able.

    Attributes:
        start_ns, end_ns, drained_ns: times of the cell; None if it was stopped before its end.
        stopped_ns: time of the stop; None without one.
        client: what the load processes took; None where it is not known.
        machine_busy_s: CPU time of all programs on this machine during the cell [s]; None if unknown.
        failure: why the load broke off; None if it did not.
        power_faults: what the sampler found wrong, a sentence each.
    """

    start_ns: int | None = None
    end_ns: int | None = None
    drained_ns: int | None = None
    stopped_ns: int | None = None
    client: LoadClient | None = None
    machine_busy_s: float | None = None
    failure: str | None = None
    power_faults: list[str] = field(default_factory=list)
