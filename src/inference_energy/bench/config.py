"""Settings of a virtual node: its engine, its sensors, and the faults to inject.

Engine settings carry the names of vLLM's flags. Defaults of the sensors were measured on H100s; see
docs/validation/bench.md. Times of faults are seconds since the node began (sensors, tenants) or since the server
listens (server).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from inference_energy.bench.hardware import DEVICES, SHAPES, BenchModelShape, Device, FrozenSettings
from inference_energy.errors import InputError

Seconds = Annotated[float, Field(ge=0)]
Every = Annotated[int, Field(ge=1, description="each n-th request, counted from 1")]


class EngineSettings(FrozenSettings):
    """Batching of requests, and the host's cost of each step.

    While the host launches kernels, samples and schedules, the GPU waits: `step_host_s` in each step and
    `sequence_host_s` for each sequence in it. The defaults are vLLM 0.25's, fitted by `validation.calibration`.
    `host_idle_w` and `host_busy_w` are the CPU packages' power at rest and while a step runs, `dram_w` is the power of
    the memory beside them; these are assumed.
    """

    max_num_seqs: int = Field(256, ge=1)
    max_num_batched_tokens: int = Field(8192, ge=1)
    block_size: int = Field(16, ge=1)
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    max_model_len: int = Field(8192, ge=1)
    enable_prefix_caching: bool = True
    num_gpu_blocks: int | None = Field(None, ge=1, description="null: what fits beside the weights")
    step_host_s: float = Field(0.96e-3, ge=0)
    sequence_host_s: float = Field(0.2e-6, ge=0)
    host_idle_w: float = Field(95.0, ge=0)
    host_busy_w: float = Field(150.0, ge=0)
    dram_w: float = Field(18.0, ge=0)

    @model_validator(mode="after")
    def _decoding_fits_the_budget(self) -> "EngineSettings":
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must not be below max_num_seqs "
                f"({self.max_num_seqs}): each running request needs a token a step"
            )
        return self


VLLM_0_11 = EngineSettings(step_host_s=1.77e-3, sequence_host_s=78.6e-6)
"""vLLM 0.11, which scheduled between steps instead of during them; fitted like the defaults."""


class NvmlSensor(FrozenSettings):
    """NVML's view of a GPU.

    Each card draws its gain from a normal distribution around 1 with `gain_std` and its offset around 0 with
    `offset_std_w`, unless `gain` and `offset_w` state them. Updates come every `update_period_s`, with a jitter whose
    standard deviation is `update_jitter_s`. `counter_latency_*` and `field_latency_s` are the durations of calls. A
    share `dropped_share` of the polls returns nothing.
    """

    average_window_s: float = Field(1.0, gt=0)
    instant_window_s: float = Field(0.025, gt=0)
    update_period_s: float = Field(0.1, gt=0)
    update_jitter_s: float = Field(0.002, ge=0)
    gain: float | None = None
    gain_std: float = Field(0.0, ge=0)
    offset_w: float | None = None
    offset_std_w: float = Field(0.0, ge=0)
    noise_std_w: float = Field(0.5, ge=0)
    power_quantum_w: float = Field(0.001, gt=0)
    counter_quantum_j: float = Field(0.001, gt=0)
    counter_latency_median_s: float = Field(0.0032, ge=0)
    counter_latency_p99_s: float = Field(0.021, ge=0)
    field_latency_s: float = Field(14e-6, ge=0)
    dropped_share: float = Field(0.0, ge=0, le=1)
    has_instant: bool = True
    has_counter: bool = True


class RaplSensor(FrozenSettings):
    """RAPL counters of the host: they wrap at `max_energy_range_j` and move every `update_period_s`."""

    present: bool = False
    max_energy_range_j: float = Field(262_143.328850, gt=0)
    update_period_s: float = Field(0.001, gt=0)
    quantum_j: float = Field(61e-6, gt=0)
    with_psys: bool = False
    packages: int = Field(1, ge=1)


class Sensors(FrozenSettings):
    """All sensors of a node; `clock_offset_s` is the error of its wall clock."""

    nvml: NvmlSensor = NvmlSensor()
    rapl: RaplSensor = RaplSensor()
    clock_offset_s: float = 0.0


class ServerFaults(FrozenSettings):
    """Faults of the server; null for none."""

    start_delay_s: Seconds = 0.0
    crash_after_s: Seconds | None = None
    crash_at_request: Every | None = None
    hang_after_s: Seconds | None = None
    error_500_every: Every | None = None
    error_event_every: Every | None = None
    disconnect_every: Every | None = None
    stall_every: Every | None = None
    stall_s: Seconds = 5.0


class _Interval(FrozenSettings):
    """A time interval from `start_s` to `end_s`."""

    start_s: Seconds = 0.0
    end_s: Seconds = 1e9

    @model_validator(mode="after")
    def _in_order(self) -> "_Interval":
        if self.end_s < self.start_s:
            raise ValueError(f"end_s ({self.end_s:g}) must not be before start_s ({self.start_s:g})")
        return self


class SensorFault(_Interval):
    """One fault of a sensor between `start_s` and `end_s`; `device` null means every GPU.

    `error`: a share `probability` of NVML calls fails. `stuck`: readings stay at their last value. `zero`: readings are
    0. `counter_reset`: the energy counter starts again at `start_s`. `clock_step`: the driver's clock jumps by
    `step_s`. The first three may affect the `power` readings or the energy `counter` alone.
    """

    kind: Literal["error", "stuck", "zero", "counter_reset", "clock_step"]
    readings: Literal["all", "power", "counter"] = "all"
    device: int | None = None
    probability: float = Field(1.0, ge=0, le=1)
    step_s: float = 0.0


def select_faults(readings: Literal["power", "counter"], faults: Sequence[SensorFault]) -> list[SensorFault]:
    """Return the faults that affect power readings, or the energy counter."""
    return [fault for fault in faults if fault.readings in ("all", readings)]


class Tenant(_Interval):
    """A second user of a GPU, who adds `power_w` between the two times and is in the list of processes."""

    device: int = 0
    power_w: float = Field(gt=0)
    start_s: Seconds
    end_s: Seconds
    pid: int = 999_999


class Faults(FrozenSettings):
    """All faults of a node."""

    server: ServerFaults = ServerFaults()
    sensors: tuple[SensorFault, ...] = ()
    tenants: tuple[Tenant, ...] = ()


class Node(FrozenSettings):
    """One virtual machine, or several identical ones: GPUs, model, engine, sensors and faults.

    `model` is a shape, or the name of a known shape, whose weights then have `weight_bits`. `tensor_parallel` GPUs of a
    machine share the model; `nodes` machines hold a copy each and take requests in turn. `power_limit_w` caps each GPU
    below its own limit. `seed` draws everything random except the load.
    """

    gpu: str = "h100"
    model: str | BenchModelShape = "llama-3.1-8b"
    weight_bits: Literal[4, 8, 16] = 16
    tensor_parallel: int = Field(1, ge=1, le=8)
    nodes: int = Field(1, ge=1)
    power_limit_w: float | None = Field(None, gt=0)
    engine: EngineSettings = EngineSettings()
    sensors: Sensors = Sensors()
    faults: Faults = Faults()
    seed: int = Field(1, ge=0)

    @property
    def device(self) -> Device:
        """Parameters of the GPU, with the power limit of this node.

        Raises:
            InputError: no such GPU.
        """
        if self.gpu not in DEVICES:
            raise InputError(f"bench: gpu: {self.gpu!r} is not known; write one of {', '.join(DEVICES)}")
        device = DEVICES[self.gpu]
        limit_w = min(self.power_limit_w or device.power_limit_w, device.power_limit_w)
        return device.model_copy(update={"power_limit_w": limit_w})

    @property
    def shape(self) -> BenchModelShape:
        """Shape of the model; a known shape gets the weights of this node.

        Raises:
            InputError: no such model.
        """
        if isinstance(self.model, BenchModelShape):
            return self.model
        if self.model not in SHAPES:
            raise InputError(f"bench: model: {self.model!r} is not known; write one of {', '.join(SHAPES)}")
        return SHAPES[self.model].model_copy(update={"weight_bytes_per_parameter": self.weight_bits / 8})

    @classmethod
    def parse(cls, content: str | dict[str, Any]) -> "Node":
        """Build a node from JSON text or a mapping.

        Raises:
            InputError: a key is unknown or a value does not fit; the message names it.
        """
        try:
            return cls.model_validate_json(content) if isinstance(content, str) else cls.model_validate(content)
        except ValidationError as error:
            faults = [
                ": ".join(["bench", *filter(None, [".".join(map(str, fault["loc"]))]), fault["msg"]])
                for fault in error.errors()
            ]
            raise InputError("; ".join(faults)) from error

    @classmethod
    def read(cls, path: Path) -> "Node":
        """Read a node from a JSON file.

        Raises:
            InputError: the file cannot be read, or does not fit.
        """
        try:
            return cls.parse(path.read_text())
        except (OSError, InputError) as error:
            raise InputError(f"{path}: {error}") from error
