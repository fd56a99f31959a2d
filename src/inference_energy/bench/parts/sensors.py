"""How the virtual sensors distort the truth. Defaults are what was measured on H100s; see docs/validation/bench.md."""

from pydantic import Field

from inference_energy.bench.parts.section import Part


class NvmlSensor(Part):
    """NVML's view of a GPU.

    Each card draws its gain from a normal distribution around 1 with `gain_std` and its offset around 0 with
    `offset_std_w`, or has those given. Updates come every `update_period_s`, with a jitter of that standard deviation.
    `counter_latency_*` and `field_latency_s` are what a call takes. `dropped_share` of polls give nothing.
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


class RaplSensor(Part):
    """RAPL counters of the host: `max_energy_range_j` is where they wrap, `update_period_s` how often they move."""

    present: bool = False
    max_energy_range_j: float = Field(262_143.328850, gt=0)
    update_period_s: float = Field(0.001, gt=0)
    quantum_j: float = Field(61e-6, gt=0)
    with_psys: bool = False
    packages: int = Field(1, ge=1)


class Sensors(Part):
    """All sensors of a node; `clock_offset_s` is how far its wall clock is off."""

    nvml: NvmlSensor = NvmlSensor()
    rapl: RaplSensor = RaplSensor()
    clock_offset_s: float = 0.0
