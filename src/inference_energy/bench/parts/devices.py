"""GPUs: what a data sheet says of them, and the constants of their time and energy."""

from inference_energy.bench.parts.section import Part


class Device(Part):
    """One kind of GPU.

    Of the data sheet: `memory_bytes`, `bandwidth_bytes_per_s`, `peak_flops` (dense bf16), `power_limit_w`,
    `link_bytes_per_s` (to its peers, one direction).

    Of time: `memory_share` and `flop_share` are the parts of bandwidth and peak that are reached; the shorter of the
    two times hides behind the longer but for `exposed_share` of it; `reduce_latency_s` is the latency of one
    all-reduce.

    Of energy: `cold_idle_w` without a model, `loaded_idle_w` with one and no request, `busy_w` while a step computes
    and `gap_w` between its kernels, on top of which each byte of memory traffic costs `byte_j` and each FLOP
    `flop_j`, or `thin_flop_j` where it decodes or samples. The chip warms towards `ambient_c` plus `k_per_w` times its
    power with the time constant `thermal_time_s`, and each kelvin above its temperature at cold idle leaks
    `leakage_w_per_k` more. Above `hot_c` clocks fall.

    Of its sensors: whether NVML `averages_power`, as on Ampere and newer but for GA100 (NVML API reference,
    nvmlDeviceGetPowerUsage); where it does not, all power is instantaneous, and that of the memory is not shown.
    """

    name: str
    label: str
    memory_bytes: float
    bandwidth_bytes_per_s: float
    peak_flops: float
    power_limit_w: float
    link_bytes_per_s: float
    memory_share: float
    flop_share: float
    exposed_share: float
    reduce_latency_s: float
    cold_idle_w: float
    loaded_idle_w: float
    busy_w: float
    gap_w: float
    byte_j: float
    flop_j: float
    thin_flop_j: float
    memory_idle_w: float
    ambient_c: float = 30.0
    k_per_w: float = 0.055
    thermal_time_s: float = 25.0
    leakage_w_per_k: float = 0.3
    hot_c: float = 87.0
    sm_clock_mhz: int = 1980
    idle_clock_mhz: int = 345
    averages_power: bool = True
