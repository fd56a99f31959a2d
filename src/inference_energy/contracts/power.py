"""power.parquet: one row a reading of one channel.

A channel is one (source, device, domain), such as (nvml, the GPU's UUID, gpu). Slow readings of the same device, such
as the energy counter or the clocks, come in rows of their own; columns without a reading are null. Rows of
`gpu_samples` are the driver's own samples of the power in `gpu`, at its own times: a cross-check, never added. Rows of
`gpu_module` are of a superchip (GH200, GB200), the Grace CPU and its memory included; they are never added.

Columns of power.parquet:
    timestamp_ns: middle of the read.
    driver_timestamp_us: the driver's own time of the reading.
    source: `nvml`, `rapl`, `modelled` and the other names of `inference-energy sources`.
    device: the GPU's UUID, `package-0` and the like, or `cpu`.
    domain: `gpu`, `gpu_memory`, `gpu_samples`, `gpu_module`, `cpu_package`, `dram`, `psys`, `cpu` or `node`.
    power_instant_w: power over the sensor's newest window.
    power_average_w: mean over the sensor's own averaging time; of a source that counts energy, since the row before.
    energy_counter_j: energy counter; its zero is arbitrary, and it grows unless it began anew.
    utilization: share of time in use, 0 to 1.
    memory_used_bytes: GPU memory in use.
    sm_clock_mhz: SM clock.
    temperature_c: temperature.
    clocks_event_reasons: NVML's bits of clocks event reasons.
    read_latency_us: duration of the read.

The metadata `source` is a list with `name` and `grade` of each source, and `channels`: for each `device` and `domain`,
where it applies,

`averaging_window_s`
    Averaging time of `power_average_w`, which ends when it is read: 0 where it is instantaneous, null where it is not
    known. Without this key `power_average_w` is the mean since the row before, or there is none.
`averaging_basis`
    Where that is from: `architecture` or `characterisation`.
`plausible_power_w`
    Highest power that is believed; without this key that of the domain (`contracts.plausible_power`). Rows hold what
    the sensor said, and readings that cannot be are used for nothing.
`left_out`
    Counters or GPUs of the same kind that were found and could not be used: they stood still, or gave no power.
`mig`
    A partitioned GPU, whose rows are of the whole card: `instances`, a list of {uuid, profile} that are visible from
    here, and `used`, the UUIDs of those that the job was given (empty where that is not known).
"""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from inference_energy.contracts.grades import POWER_GRADES

SCHEMA = pa.schema(
    [
        ("timestamp_ns", pa.int64()),
        ("driver_timestamp_us", pa.int64()),
        ("source", pa.string()),
        ("device", pa.string()),
        ("domain", pa.string()),
        ("power_instant_w", pa.float64()),
        ("power_average_w", pa.float64()),
        ("energy_counter_j", pa.float64()),
        ("utilization", pa.float64()),
        ("memory_used_bytes", pa.int64()),
        ("sm_clock_mhz", pa.int64()),
        ("temperature_c", pa.float64()),
        ("clocks_event_reasons", pa.int64()),
        ("read_latency_us", pa.float64()),
    ]
)

CSV_COLUMNS = (
    "boundary",
    *("channel_source", "channel_device", "channel_domain", "channel_grade"),
    *("power_average_w", "averaging_window_s", "power_instant_w", "energy_counter_j", "plausible_power_w", "left_out"),
    *("utilization", "memory_used_bytes", "sm_clock_mhz", "temperature_c", "clocks_event_reasons", "read_latency_us"),
)
"""Columns of a reading in the CSV of `log-power`, beside those of the sum."""

GPU_SAMPLES = "gpu_samples"
GPU_MODULE = "gpu_module"
DOMAINS = ("gpu", "gpu_memory", GPU_SAMPLES, GPU_MODULE, "cpu_package", "dram", "psys", "cpu", "node")

UNKNOWN = "unknown"
BOUNDARIES = ("gpu", "gpu_module", "cpu_package", "dram", "psys", "cpu", "node", "wall", UNKNOWN)
"""Parts that a power log of another tool may be of. `wall` is what a meter at the plug sees: all that is plugged in,
with the losses of power supplies."""

SOURCE_DOMAINS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("nvml", "nvidia-smi", "amd-smi", "dcgm"), ("gpu",)),
    **dict.fromkeys(("rapl", "pcm-power"), ("cpu_package", "dram")),
    **dict.fromkeys(("redfish", "ipmi", "smart-plug", "pdu"), ("node",)),
    "modelled": ("cpu",),
}
"""The domains that each source adds up."""

AVERAGING_WINDOW_S = "averaging_window_s"
MIG = "mig"
LEFT_OUT = "left_out"

_RANKS: tuple[str, ...] = POWER_GRADES


def summed_domains(domains: Iterable[str]) -> frozenset[str]:
    """Return the domains that can be added up without counting a part twice.

    `gpu_memory` is part of `gpu`, and `gpu_samples` is the same power as `gpu`. `gpu_module` includes `gpu`, and two
    GPUs may show the same module. `psys` includes the package and is logged beside it, never added. `node` includes
    everything. `cpu` (modelled) and `cpu_package` (counted) are the same silicon, so the counted one is taken.
    """
    present = frozenset(domains)
    if "node" in present:
        return frozenset({"node"})
    chosen = present & {"gpu", "cpu_package", "dram", "cpu"}
    return chosen - {"cpu"} if "cpu_package" in chosen else chosen


Key = tuple[str, str, str]
"""A channel: source, device, domain."""


def summed_keys(channels: Iterable[tuple[Key, str]]) -> frozenset[Key]:
    """Return the channels that can be added up: each device by its best source, the whole machine by one source.

    Args:
        channels: each channel with its grade. Of two sources of a device the better grade counts, then the first name;
            several sources of `node`, such as a plug and the BMC behind it, measure the same machine under
            different names.
    """
    grades = dict(channels)
    domains = summed_domains(domain for *_, domain in grades)
    best: dict[tuple[str, str], tuple[int, str]] = {}
    for (source, device, domain), grade in grades.items():
        part = (domain, "" if domain == "node" else device)
        rank = (_RANKS.index(grade), source)
        if domain in domains and (part not in best or rank < best[part]):
            best[part] = rank
    return frozenset(
        key for key in grades if key[2] in domains and best[key[2], "" if key[2] == "node" else key[1]][1] == key[0]
    )


DOMAIN_ORDER = ("node", "gpu", "cpu_package", "dram", "cpu")


def domains_text(parts: Iterable[tuple[str, str]]) -> str:
    """Return domains in this order, with the grade of modelled ones: `gpu + dram` or `cpu (modelled)`."""
    labels = [domain + (f" ({grade})" if grade in ("modelled", "simulated") else "") for domain, grade in parts]
    return " + ".join(dict.fromkeys(labels)) or "nothing"


def channel_facts(sources: Any) -> dict[Key, dict[str, Any]]:
    """Return the facts about each channel in the metadata `source`; old logs have none."""
    return {
        (str(source["name"]), str(facts["device"]), str(facts["domain"])): facts
        for source in sources or []
        if isinstance(source, dict)
        for facts in source.get("channels") or []
    }
