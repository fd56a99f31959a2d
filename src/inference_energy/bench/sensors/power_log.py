"""Power log of a simulated node, with the sensors of all its GPUs and hosts, written at once.

The log is that of `acquire/power/sampler.py` for NVML and RAPL: the same channels, periods, columns and nulls. A
failed reading leaves no row. Times are the middles of the reads. The driver's ring of samples is left out: it is added
to nothing and would make the log seven times as long.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inference_energy.bench.config import Node
from inference_energy.bench.hardware import DEVICES
from inference_energy.bench.sensors.nvml import GpuSensor, gpu_state, memory_power_w
from inference_energy.bench.sensors.rapl import RaplView, unwrapped_j
from inference_energy.bench.sensors.update_clock import CallLatency, PollRounds, RandomStream
from inference_energy.bench.truth.ledger import Floats, Integers
from inference_energy.bench.truth.power_trace import TruePower, device_power, host_power
from inference_energy.contracts.plausible_power import BOARD_FACTOR, PLAUSIBLE_POWER_W, stated_limit_w
from inference_energy.contracts.power import AVERAGING_WINDOW_S, SCHEMA

# As in acquire/power/sources, nvml and rapl.py, which the bench does not import; a test keeps them equal.
COUNTER_PERIOD_S = 0.5
EXTRAS_PERIOD_S = 1.0
STALLED_AFTER_S = 2.0

RAPL_READ_S = (15e-6, 60e-6)
"""Median and 99th percentile of reading a file of /sys/class/powercap; assumed."""

_LABELS = ("source", "device", "domain")

SensorTrace = NDArray[np.void]


def gpu_number(node: Node, host_index: int, gpu_index: int) -> int:
    """Return a GPU's number counted through all nodes; faults and tenants refer to it, and it seeds the card."""
    return host_index * node.tensor_parallel + gpu_index


def host_prefix(node: Node, host_index: int) -> str:
    """Return the prefix of device names where there are several nodes."""
    return f"node{host_index}/" if node.nodes > 1 else ""


def gpu_name(node: Node, host_index: int, gpu_index: int) -> str:
    """Return a GPU's UUID, which says that it is simulated."""
    card = RandomStream(node.seed, "uuid").key & 0xFFFFFFFF
    return f"{host_prefix(node, host_index)}GPU-{card:08x}-sim-{gpu_index}"


def gpu_truth(node: Node, trace: NDArray[np.void], host_index: int, gpu_index: int, origin_ns: int) -> TruePower:
    """Return the true power of one GPU, including its tenants.

    Args:
        node: the settings.
        trace: its node's trace, of `TRACE_DTYPE`, shape (rows,).
        host_index: number of the node.
        gpu_index: number of the GPU in the node.
        origin_ns: when the node began.
    """
    number = gpu_number(node, host_index, gpu_index)
    tenants = [tenant for tenant in node.faults.tenants if tenant.device == number]
    return device_power(trace, tenants, origin_ns)


def gpu_sensor(
    node: Node, truth: TruePower, host_index: int, gpu_index: int, origin_ns: int, wall_ns: int = 0
) -> GpuSensor:
    """Return the sensor of one GPU; `wall_ns` is wall-clock minus monotonic time."""
    return GpuSensor(
        node.sensors.nvml,
        truth,
        device=gpu_number(node, host_index, gpu_index),
        seed=node.seed,
        origin_ns=origin_ns,
        faults=node.faults.sensors,
        clock_offset_s=node.sensors.clock_offset_s,
        wall_ns=wall_ns,
        averages=node.device.averages_power,
    )


def rapl_view(node: Node, trace: NDArray[np.void], host_index: int, origin_ns: int) -> RaplView:
    """Return the RAPL counters of one node, without zones if it has none."""
    return RaplView(
        node.sensors.rapl,
        host_power(trace),
        node.engine,
        origin_ns=origin_ns,
        seed=node.seed,
        host_index=host_index,
    )


def sources(node: Node) -> list[dict[str, Any]]:
    """Return the log's metadata about its sources, and about the channels that average."""
    window_s = {AVERAGING_WINDOW_S: 1.0 if node.device.averages_power else 0.0, "averaging_basis": "architecture"}
    domains = ["gpu", "gpu_memory"] if node.device.averages_power else ["gpu"]
    gpus = [gpu_name(node, host, gpu) for host in range(node.nodes) for gpu in range(node.tensor_parallel)]
    limit_w = stated_limit_w([DEVICES[node.gpu].power_limit_w], BOARD_FACTOR)
    channels = [
        {"device": gpu, "domain": domain, **window_s, PLAUSIBLE_POWER_W: limit_w} for gpu in gpus for domain in domains
    ]
    nvml = {"name": "nvml", "grade": "simulated", "channels": channels}
    return [nvml, {"name": "rapl", "grade": "simulated"}] if node.sensors.rapl.present else [nvml]


def power_log(
    traces: Sequence[SensorTrace],
    node: Node,
    *,
    origin_ns: int,
    start_ns: int,
    end_ns: int,
    interval_s: float = 0.1,
    wall_ns: int = 0,
) -> pa.Table:
    """Return the log of all nodes.

    Args:
        traces: one array of `TRACE_DTYPE` for each node, shape (rows,), that covers the time of the log.
        node: the settings; its seed draws everything random.
        origin_ns: when the nodes began.
        start_ns: time of the first poll.
        end_ns: end of the log, after the last poll.
        interval_s: period of power polls; counters have their own period.
        wall_ns: wall-clock minus monotonic time, for the driver's timestamps.

    Returns:
        Rows of `contracts.power.SCHEMA`, sorted by time.
    """
    parts: list[pa.Table] = []
    for host, trace in enumerate(traces):
        late = RandomStream(node.seed, "sampler", host, "late")
        rounds = PollRounds(start_ns, end_ns, interval_s, late)
        every = max(1, int(np.ceil(EXTRAS_PERIOD_S / interval_s - 1e-9)))
        for gpu in range(node.tensor_parallel):
            name = gpu_name(node, host, gpu)
            sensor = gpu_sensor(node, gpu_truth(node, trace, host, gpu, origin_ns), host, gpu, origin_ns, wall_ns)
            parts.append(_power_rows(sensor, rounds, name, every, node, trace))
            parts.append(_memory_rows(sensor, rounds, name, node))
            if node.sensors.nvml.has_counter:
                late_too = RandomStream(node.seed, "sampler", host, "late counter", gpu)
                parts.append(_counter_rows(sensor, PollRounds(start_ns, end_ns, COUNTER_PERIOD_S, late_too), name))
        view = rapl_view(node, trace, host, origin_ns)
        parts += _rapl_rows(view, rounds, node.seed, host_prefix(node, host))
    table = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
    order = np.argsort(table["timestamp_ns"].to_numpy(), kind="stable")
    return table.take(pa.array(order)).cast(SCHEMA)


def _power_rows(
    sensor: GpuSensor, rounds: PollRounds, name: str, every: int, node: Node, trace: SensorTrace
) -> pa.Table:
    """Return rows of power, with the GPU's state in the first valid reading of each second."""
    calls = rounds.call(sensor.field_latency_s(rounds.now_ns))
    fields = sensor.fields(calls.middle_ns)
    (kept,) = np.nonzero(~(np.isnan(fields.average_w) & np.isnan(fields.instant_w)))
    second = kept // every
    first = np.diff(second, prepend=-1) > 0
    times_ns = calls.middle_ns[kept]
    state = gpu_state(node, trace, times_ns[first])
    return _table(
        ("nvml", name, "gpu"),
        timestamp_ns=times_ns,
        driver_timestamp_us=fields.driver_timestamp_us[kept],
        power_average_w=fields.average_w[kept],
        power_instant_w=fields.instant_w[kept],
        read_latency_us=calls.latency_s[kept] * 1e6,
        **{column: _spread(values, first) for column, values in vars(state).items()},
    )


def _memory_rows(sensor: GpuSensor, rounds: PollRounds, name: str, node: Node) -> pa.Table:
    calls = rounds.call(sensor.field_latency_s(rounds.now_ns))
    power_w = memory_power_w(sensor.average_w(calls.middle_ns), node.device)
    kept = ~np.isnan(power_w)
    return _table(
        ("nvml", name, "gpu_memory"),
        timestamp_ns=calls.middle_ns[kept],
        power_average_w=power_w[kept],
        read_latency_us=calls.latency_s[kept] * 1e6,
    )


def _counter_rows(sensor: GpuSensor, rounds: PollRounds, name: str) -> pa.Table:
    calls = rounds.call(sensor.counter_latency_s(rounds.now_ns))
    energy_j = sensor.counter_j(calls.middle_ns)
    kept = ~np.isnan(energy_j)
    return _table(
        ("nvml", name, "gpu"),
        timestamp_ns=calls.middle_ns[kept],
        energy_counter_j=energy_j[kept],
        read_latency_us=calls.latency_s[kept] * 1e6,
    )


def _rapl_rows(view: RaplView, rounds: PollRounds, seed: int, prefix: str) -> list[pa.Table]:
    """Return a table for each zone: energy since the first read, and mean power since the counter last moved."""
    tables = []
    for zone in view.zones:
        latency = CallLatency(*RAPL_READ_S, RandomStream(seed, "rapl latency", prefix, zone.folder))
        calls = rounds.call(latency.seconds(rounds.now_ns))
        energy_j = unwrapped_j(view.raw_uj(zone, calls.middle_ns), view.range_uj)
        power_w, kept = _since_moved(calls.middle_ns, energy_j)
        tables.append(
            _table(
                ("rapl", prefix + zone.device, zone.domain),
                timestamp_ns=calls.middle_ns[kept],
                power_average_w=power_w[kept],
                energy_counter_j=energy_j[kept],
                read_latency_us=calls.latency_s[kept] * 1e6,
            )
        )
    return tables


def _since_moved(times_ns: Integers, energy_j: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the mean power since the counter last moved, NaN where it has not moved since.

    Returns:
        The powers, and which readings count: not those of a counter that did not move for too long.
    """
    number = np.arange(len(times_ns))
    moved = np.diff(energy_j, prepend=energy_j[:1]) > 0
    last = np.maximum.accumulate(np.where(moved, number, 0))
    before = np.concatenate((last[:1], last[:-1]))
    elapsed_s = (times_ns - times_ns[before]) / 1e9
    power_w = np.full(len(times_ns), np.nan)
    power_w[moved] = (energy_j - energy_j[before])[moved] / elapsed_s[moved]
    return power_w, moved | (elapsed_s <= STALLED_AFTER_S)


def _spread(values: NDArray[Any], rows: NDArray[np.bool_]) -> pa.Array:
    """Return values for some rows, and null in the others."""
    full = np.zeros(len(rows), dtype=values.dtype)
    full[rows] = values
    return pa.array(full, mask=~rows)


def _table(labels: tuple[str, str, str], **columns: Any) -> pa.Table:
    """Return rows of one channel; absent columns and NaN are null. Labels stay encoded until the rows are sorted."""
    count = len(columns["timestamp_ns"])
    arrays = {}
    for field in SCHEMA:
        if field.name in _LABELS:
            code = pa.array(np.zeros(count, dtype=np.int32))
            arrays[field.name] = pa.DictionaryArray.from_arrays(code, [labels[_LABELS.index(field.name)]])
        elif field.name in columns:
            values = columns[field.name]
            arrays[field.name] = values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)
        else:
            arrays[field.name] = pa.nulls(count, field.type)
    return pa.table(arrays)
