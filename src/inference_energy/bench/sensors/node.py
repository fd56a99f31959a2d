"""The sensors of a whole node, and what its GPUs are called."""

import numpy as np
from numpy.typing import NDArray

from inference_energy.bench.parts.node import Node
from inference_energy.bench.sensors.draws import Draws
from inference_energy.bench.sensors.nvml import GpuSensor
from inference_energy.bench.sensors.rapl import RaplView
from inference_energy.bench.truth.trace import TruePower, device_power, host_power


def gpu_number(node: Node, host_index: int, gpu_index: int) -> int:
    """A GPU's number counted through all nodes; it draws the card, and faults and tenants go by it."""
    return host_index * node.tensor_parallel + gpu_index


def host_prefix(node: Node, host_index: int) -> str:
    """What a device's name begins with where there are several nodes."""
    return f"node{host_index}/" if node.nodes > 1 else ""


def gpu_name(node: Node, host_index: int, gpu_index: int) -> str:
    """A GPU's UUID, which says that it is simulated."""
    card = Draws(node.seed, "uuid").key & 0xFFFFFFFF
    return f"{host_prefix(node, host_index)}GPU-{card:08x}-sim-{gpu_index}"


def gpu_truth(node: Node, trace: NDArray[np.void], host_index: int, gpu_index: int, origin_ns: int) -> TruePower:
    """The true power of one GPU, its other tenants included.

    Args:
        node: the settings.
        trace: its node's trace, of `TRACE_DTYPE`, shape (rows,).
        host_index: which node.
        gpu_index: which of its GPUs.
        origin_ns: the moment the node began.
    """
    number = gpu_number(node, host_index, gpu_index)
    tenants = [tenant for tenant in node.faults.tenants if tenant.device == number]
    return device_power(trace, tenants, origin_ns)


def gpu_sensor(
    node: Node, truth: TruePower, host_index: int, gpu_index: int, origin_ns: int, wall_ns: int = 0
) -> GpuSensor:
    """The sensor of one GPU; `wall_ns` is wall-clock less monotonic time."""
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
    """The RAPL counters of one node; without zones where it has none."""
    return RaplView(
        node.sensors.rapl,
        host_power(trace),
        node.engine,
        origin_ns=origin_ns,
        seed=node.seed,
        host_index=host_index,
    )
